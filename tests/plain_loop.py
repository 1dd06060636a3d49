"""Training as PyTorch's tutorial writes it: what the service's accuracies are compared with.

Nothing of ours is in it: it reads the archive with Pillow, batches with a DataLoader, counts for itself.
"""

import copy
import csv
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

# B rows in the batch, C channels or classes, H height, W width

Pairs = Dataset[tuple[Tensor, int]]


@dataclass(frozen=True)
class Settings:
    """`order(epoch)` are the training rows in the order of an epoch."""

    lr: float
    momentum: float
    batch_size: int
    epochs: int
    seed: int
    order: Callable[[int], Sequence[int]]


class Pictures(Dataset[tuple[Tensor, int]]):
    """Members of a zip as float32 [C, H, W] in 0..1, transformed, and the index of each one's label."""

    def __init__(
        self, archive: Path, labels: Mapping[str, str], names: Sequence[str], *transforms: nn.Module
    ) -> None:
        classes = sorted(set(labels.values()))
        with zipfile.ZipFile(archive) as members:
            self.images = [Image.open(io.BytesIO(members.read(name))) for name in names]
        self.targets = [classes.index(labels[name]) for name in names]
        self.transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), *transforms])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.targets[index]


def labels_of_csv(archive: Path, name: str) -> dict[str, str]:
    """Path to label, from a CSV of the archive with a header."""
    with zipfile.ZipFile(archive) as members:
        _, *rows = csv.reader(io.TextIOWrapper(members.open(name), "utf-8"))
    return dict(rows)


def labels_of_folders(archive: Path, split: str) -> dict[str, str]:
    """Path to label, from `<split>/<label>/<file>`."""
    with zipfile.ZipFile(archive) as members:
        names = [name for name in members.namelist() if name.startswith(f"{split}/")]
    return {name: name.split("/")[1] for name in names if not name.endswith("/")}


def train(
    make_net: Callable[[], nn.Module], training: Pairs, validation: Pairs, settings: Settings
) -> nn.Module:
    """SGD on cross entropy; the net as it was after the epoch with the least validation loss."""
    torch.manual_seed(settings.seed)
    net = make_net()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=settings.lr, momentum=settings.momentum)
    least_loss, best = float("inf"), net
    for epoch in range(settings.epochs):
        net.train()
        loader = DataLoader(training, batch_size=settings.batch_size, sampler=settings.order(epoch))
        for x_BCHW, y_B in loader:
            optimizer.zero_grad()
            loss = criterion(net(x_BCHW), y_B)
            loss.backward()
            optimizer.step()
        loss_mean, _ = evaluate(net, validation)
        if loss_mean < least_loss:
            least_loss, best = loss_mean, copy.deepcopy(net)
    return best


def evaluate(net: nn.Module, pairs: Pairs) -> tuple[float, float]:
    """Mean cross entropy and accuracy."""
    net.eval()
    loss_sum, correct, count = 0.0, 0, 0
    with torch.no_grad():
        for x_BCHW, y_B in DataLoader(pairs, batch_size=256):
            logits_BC = net(x_BCHW)
            loss_sum += nn.functional.cross_entropy(logits_BC, y_B, reduction="sum").item()
            correct += int((logits_BC.argmax(1) == y_B).sum())
            count += len(y_B)
    return loss_sum / count, correct / count
