"""What job.json stands for, written in PyTorch: its quickstart tutorial.

python -m examples.fashion_mnist.by_hand data    # which has FashionMNIST/raw/train-images-idx3-ubyte, …
"""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import FashionMNIST
from torchvision.transforms import ToTensor


def make_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(28 * 28, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


def train(root: str, epochs: int = 5, seed: int = 0) -> tuple[nn.Sequential, float]:
    """The net and its accuracy on the test pictures."""
    torch.manual_seed(seed)
    training = FashionMNIST(root, train=True, transform=ToTensor())
    test = FashionMNIST(root, train=False, transform=ToTensor())
    net = make_net()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    for _ in range(epochs):
        for x, y in DataLoader(training, batch_size=64, shuffle=True):
            optimizer.zero_grad()
            criterion(net(x), y).backward()
            optimizer.step()
    with torch.no_grad():
        correct = sum(int((net(x).argmax(1) == y).sum()) for x, y in DataLoader(test, batch_size=256))
    return net, correct / len(test)


if __name__ == "__main__":
    print(train(sys.argv[1])[1])
