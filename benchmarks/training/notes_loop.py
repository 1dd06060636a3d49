"""The notes' loop: a torchvision dataset, transforms a sample, a DataLoader, a loop over its batches.

python -m benchmarks.training.notes_loop CASE FOLDER EPOCHS PRECISION
"""

import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # the first optimizer imports it: imports are not counted
from torch import nn

from benchmarks.training.cases import CASES, SEED, Case
from benchmarks.training.nets import make_net
from benchmarks.training.results import Result, say
from benchmarks.training.tutorial_data import Loader, loaders


def main(case: Case, folder: Path, epochs: int) -> Result:
    began = time.perf_counter()
    torch.manual_seed(SEED)
    train_loader, val_loader, test_loader = loaders(case, folder)
    model = make_net(case.name)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=case.lr, momentum=case.momentum)
    rows, epochs_began = 0, time.perf_counter()
    for epoch in range(epochs):
        model.train()
        running_loss = 0.0
        for inputs, labels in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item() * len(labels)
            rows += len(labels)
        test(model, val_loader, criterion)
        torch.save(model.state_dict(), folder / f"notes-{epoch}.pt")
    epochs_s = time.perf_counter() - epochs_began
    _, accuracy = test(model, test_loader, criterion)
    return Result(rows, epochs_s, time.perf_counter() - began, accuracy)


def test(model: nn.Module, loader: Loader, criterion: nn.Module) -> tuple[float, float]:
    """Mean loss and accuracy."""
    model.eval()
    loss_sum, correct, count = 0.0, 0, 0
    with torch.no_grad():
        for inputs, labels in loader:
            outputs = model(inputs)
            loss_sum += criterion(outputs, labels).item() * len(labels)
            correct += int((outputs.argmax(1) == labels).sum().item())
            count += len(labels)
    return loss_sum / count, correct / count


if __name__ == "__main__":
    say(main(CASES[sys.argv[1]], Path(sys.argv[2]), int(sys.argv[3])))
