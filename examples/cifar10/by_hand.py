"""What job.json stands for, written in PyTorch.

python -m examples.cifar10.by_hand cifar10    # which has train/<class>/*.jpg and test/<class>/*.jpg
"""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

PLAIN = [
    v2.ToImage(),
    v2.ToDtype(torch.float32, scale=True),
    v2.Normalize([0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616]),
]


def make_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 8 * 8, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def train(root: Path, epochs: int = 8, seed: int = 0) -> tuple[nn.Sequential, float]:
    """The net and its accuracy on the test pictures."""
    torch.manual_seed(seed)
    training = ImageFolder(root / "train", v2.Compose([v2.RandomHorizontalFlip(0.5), *PLAIN]))
    test = ImageFolder(root / "test", v2.Compose(PLAIN))
    net = make_net()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    for _ in range(epochs):
        for x, y in DataLoader(training, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            criterion(net(x), y).backward()
            optimizer.step()
    with torch.no_grad():
        correct = sum(int((net(x).argmax(1) == y).sum()) for x, y in DataLoader(test, batch_size=256))
    return net, correct / len(test)


if __name__ == "__main__":
    print(train(Path(sys.argv[1]))[1])
