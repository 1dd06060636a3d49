"""What job.json stands for, written in PyTorch.

python -m examples.transformer_text.by_hand sentences.zip
"""

import math
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from examples.lstm_text.by_hand import LENGTH, MAX_TOKENS, read

# B rows in the batch, T words, E embedding's width, C classes


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(MAX_TOKENS, 32, padding_idx=0)
        self.dropout = nn.Dropout(0.1)
        layer = nn.TransformerEncoderLayer(32, nhead=4, dim_feedforward=64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.linear = nn.Linear(32, 3)

    def forward(self, x_BT: Tensor) -> Tensor:
        steps_BTE = self.dropout(self.embedding(x_BT) + positions(LENGTH, 32))
        logits_BC: Tensor = self.linear(self.encoder(steps_BTE).mean(dim=1))
        return logits_BC


def positions(length: int, width: int) -> Tensor:
    angles_TP = torch.arange(length)[:, None] * torch.exp(
        torch.arange(0, width, 2) * (-math.log(10000.0) / width)
    )
    return torch.stack([angles_TP.sin(), angles_TP.cos()], dim=2).flatten(1)


def train(archive: Path, epochs: int = 4, seed: int = 0) -> tuple[Net, float]:
    """The net and its accuracy on the test sentences."""
    training, test = read(archive, side="right")
    torch.manual_seed(seed)
    net = Net()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.003)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 50))
    for _ in range(epochs):
        for x_BT, y_B in DataLoader(training, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            criterion(net(x_BT), y_B).backward()
            optimizer.step()
            scheduler.step()
    net.eval()
    x, y = test.tensors
    with torch.no_grad():
        return net, (net(x).argmax(1) == y).float().mean().item()


if __name__ == "__main__":
    print(train(Path(sys.argv[1]))[1])
