"""What job.json stands for, written in PyTorch.

python -m examples.fine_tuning.by_hand pictures resnet18.pt    # train/<class>/*.jpg and test/<class>/*.jpg
"""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import ResNet, resnet18
from torchvision.transforms import v2

PLAIN = [
    v2.ToImage(),
    v2.Resize((64, 64)),
    v2.ToDtype(torch.float32, scale=True),
    v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
]


def make_net(num_classes: int, weights: Path) -> ResNet:
    """With a new head."""
    net = resnet18(num_classes=1000)
    net.load_state_dict(torch.load(weights, weights_only=True))
    net.fc = nn.Linear(net.fc.in_features, num_classes)
    return net


def train(root: Path, weights: Path, epochs: int = 6, seed: int = 0) -> tuple[ResNet, float]:
    """The net and its accuracy on the test pictures."""
    torch.manual_seed(seed)
    training = ImageFolder(root / "train", v2.Compose([*PLAIN, v2.RandomHorizontalFlip()]))
    test = ImageFolder(root / "test", v2.Compose(PLAIN))
    net = make_net(len(training.classes), weights)
    net.requires_grad_(False)
    net.fc.requires_grad_(True)
    criterion = nn.CrossEntropyLoss()
    groups = [{"params": net.fc.parameters()}, {"params": net.layer4.parameters(), "lr": 0.001}]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    for epoch in range(epochs):
        if epoch == 2:
            net.layer4.requires_grad_(True)
        net.eval()  # what is frozen keeps the statistics of its batch norms
        net.layer4.train(epoch >= 2)
        for x, y in DataLoader(training, batch_size=16, shuffle=True):
            optimizer.zero_grad()
            criterion(net(x), y).backward()
            optimizer.step()
    net.eval()
    with torch.no_grad():
        correct = sum(int((net(x).argmax(1) == y).sum()) for x, y in DataLoader(test, batch_size=256))
    return net, correct / len(test)


if __name__ == "__main__":
    print(train(Path(sys.argv[1]), Path(sys.argv[2]))[1])
