"""What job.json stands for, written in PyTorch.

python -m examples.linear_regression.by_hand diabetes.zip
"""

import csv
import io
import sys
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

COLUMNS = ["sex", "bmi", "bp", "s5"]


def train(archive: Path, epochs: int = 200, seed: int = 0) -> tuple[nn.Linear, float]:
    """The layer over standardised columns, and R² on the test rows."""
    torch.manual_seed(seed)
    x, y = read(archive, "train")
    mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
    net = nn.Linear(len(COLUMNS), 1)
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(epochs):
        optimizer.zero_grad()
        criterion(net((x - mean) / std), y).backward()
        optimizer.step()
    x, y = read(archive, "test")
    with torch.no_grad():
        unexplained = (net((x - mean) / std) - y).square().sum() / (y - y.mean()).square().sum()
    return net, 1 - unexplained.item()


def read(archive: Path, split: str) -> tuple[Tensor, Tensor]:
    with zipfile.ZipFile(archive) as members:
        rows = list(csv.DictReader(io.TextIOWrapper(members.open(f"{split}.csv"), "utf-8")))
    inputs = torch.tensor([[float(row[name]) for name in COLUMNS] for row in rows])
    return inputs, torch.tensor([[float(row["progression"])] for row in rows])


if __name__ == "__main__":
    print(train(Path(sys.argv[1]))[1])
