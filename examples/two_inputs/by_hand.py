"""What job.json stands for, written in PyTorch.

python -m examples.two_inputs.by_hand things.zip
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

# B rows in the batch, F numbers, T words, C classes

MAX_TOKENS, LENGTH = 2000, 16


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.counted = nn.Linear(3, 16)
        self.words = nn.Embedding(MAX_TOKENS, 32, padding_idx=0)
        self.head = nn.Linear(16 + 32, 2)

    def forward(self, numbers_BF: Tensor, text_BT: Tensor) -> Tensor:
        read = self.words(text_BT).mean(dim=1)
        both = torch.cat([self.counted(numbers_BF), read], dim=1)
        logits_BC: Tensor = self.head(both.relu())
        return logits_BC


def train(archive: Path, epochs: int = 10, seed: int = 0) -> tuple[Net, float]:
    """The net and its accuracy on the test rows."""
    training, test = read(archive)
    torch.manual_seed(seed)
    net = Net()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.005)
    for _ in range(epochs):
        for numbers_BF, text_BT, y_B in DataLoader(training, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            criterion(net(numbers_BF, text_BT), y_B).backward()
            optimizer.step()
    numbers, text, y = test.tensors
    with torch.no_grad():
        return net, (net(numbers, text).argmax(1) == y).float().mean().item()


def read(archive: Path) -> tuple[TensorDataset, TensorDataset]:
    """Training and test; what is standardised and which words have an index is the training rows' to say."""
    rows = {}
    with zipfile.ZipFile(archive) as members:
        for split in ("train", "test"):
            rows[split] = list(csv.DictReader(io.TextIOWrapper(members.open(f"{split}.csv"), "utf-8")))
    counts = Counter(word for row in rows["train"] for word in words(row["summary"]))
    indices = {word: place + 2 for place, (word, _) in enumerate(counts.most_common(MAX_TOKENS - 2))}
    numbers = {
        split: torch.tensor(
            [[float(row[name]) for name in ("parameters", "defaults", "lines")] for row in these]
        )
        for split, these in rows.items()
    }
    mean, std = numbers["train"].mean(dim=0), numbers["train"].std(dim=0, correction=0)

    def tokens(text: str) -> list[int]:
        found = [indices.get(word, 1) for word in words(text)][:LENGTH]
        return found + [0] * (LENGTH - len(found))

    training, test = (
        TensorDataset(
            (numbers[split] - mean) / std,
            torch.tensor([tokens(row["summary"]) for row in rows[split]]),
            torch.tensor([int(row["kind"] == "function") for row in rows[split]]),
        )
        for split in ("train", "test")
    )
    return training, test


def words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]+", text.lower())


if __name__ == "__main__":
    print(train(Path(sys.argv[1]))[1])
