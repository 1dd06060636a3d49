"""torchvision's datasets with transforms a sample, as PyTorch's tutorials write them. For the notes' loop and
for Lightning."""

import os
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets, transforms

from benchmarks.training.cases import MEAN, STD, Case
from benchmarks.training.data import PHOTO_SIDE, is_validation

Pairs = Dataset[tuple[torch.Tensor, int]]
Loader = DataLoader[tuple[torch.Tensor, torch.Tensor]]


def splits(case: Case, folder: Path) -> tuple[Pairs, Pairs, Pairs]:
    """Training, validation, test."""
    if case.name == "mlp":
        return _mnist(folder)
    train, evaluation = _transforms(case)
    return (
        datasets.ImageFolder(str(folder / "train"), train),
        datasets.ImageFolder(str(folder / "val"), evaluation),
        datasets.ImageFolder(str(folder / "test"), evaluation),
    )


def loaders(case: Case, folder: Path) -> tuple[Loader, Loader, Loader]:
    workers = os.cpu_count() or 1 if case.workers is None else case.workers
    training, validation, test = splits(case, folder)
    keep = workers > 0
    return (
        DataLoader(training, case.batch_size, shuffle=True, num_workers=workers, persistent_workers=keep),
        DataLoader(validation, case.batch_size, num_workers=workers, persistent_workers=keep),
        DataLoader(test, case.batch_size, num_workers=workers),
    )


def _mnist(folder: Path) -> tuple[Pairs, Pairs, Pairs]:
    whole = datasets.MNIST(str(folder), train=True, transform=transforms.ToTensor())
    rows = range(len(whole))
    return (
        Subset(whole, [row for row in rows if not is_validation(row)]),
        Subset(whole, [row for row in rows if is_validation(row)]),
        datasets.MNIST(str(folder), train=False, transform=transforms.ToTensor()),
    )


def _transforms(case: Case) -> tuple[transforms.Compose, transforms.Compose]:
    last = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    if case.name == "photos":
        before = [transforms.Resize(256), transforms.CenterCrop(PHOTO_SIDE)]
        return (
            transforms.Compose([transforms.RandomResizedCrop(PHOTO_SIDE), *last]),
            transforms.Compose([*before, *last]),
        )
    return transforms.Compose([transforms.RandomHorizontalFlip(), *last]), transforms.Compose(last)
