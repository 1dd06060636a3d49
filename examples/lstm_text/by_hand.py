"""What job.json stands for, written in PyTorch.

python -m examples.lstm_text.by_hand sentences.zip
"""

import csv
import io
import re
import sys
import zipfile
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

# B rows in the batch, T words, C classes

MAX_TOKENS, LENGTH = 4000, 24


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(MAX_TOKENS, 32, padding_idx=0)
        self.lstm = nn.LSTM(32, 64, batch_first=True)
        self.linear = nn.Linear(64, 3)

    def forward(self, x_BT: Tensor) -> Tensor:
        steps_BTH, _ = self.lstm(self.embedding(x_BT))
        logits_BC: Tensor = self.linear(steps_BTH[:, -1])
        return logits_BC


def train(archive: Path, epochs: int = 4, seed: int = 0) -> tuple[Net, float]:
    """The net and its accuracy on the test sentences."""
    training, test = read(archive)
    torch.manual_seed(seed)
    net = Net()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.005)
    for _ in range(epochs):
        for x_BT, y_B in DataLoader(training, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            criterion(net(x_BT), y_B).backward()
            optimizer.step()
    x, y = test.tensors
    with torch.no_grad():
        return net, (net(x).argmax(1) == y).float().mean().item()


def read(archive: Path, side: str = "left") -> tuple[TensorDataset, TensorDataset]:
    """Training and test: words as indices into the training sentences' own, padded on a side."""
    rows = {}
    with zipfile.ZipFile(archive) as members:
        for split in ("train", "test"):
            _, *rows[split] = csv.reader(io.TextIOWrapper(members.open(f"{split}.csv"), "utf-8"))
    counts = Counter(word for text, _ in rows["train"] for word in words(text))
    indices = {word: place + 2 for place, (word, _) in enumerate(counts.most_common(MAX_TOKENS - 2))}
    labels = sorted({label for _, label in rows["train"]})

    def row(text: str) -> list[int]:
        found = [indices.get(word, 1) for word in words(text)][:LENGTH]
        padding = [0] * (LENGTH - len(found))
        return padding + found if side == "left" else found + padding

    training, test = (
        TensorDataset(
            torch.tensor([row(text) for text, _ in rows[split]]),
            torch.tensor([labels.index(label) for _, label in rows[split]]),
        )
        for split in ("train", "test")
    )
    return training, test


def words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]+", text.lower())


if __name__ == "__main__":
    print(train(Path(sys.argv[1]))[1])
