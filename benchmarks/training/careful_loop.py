"""A careful hand-written loop: the images in memory as uint8, a batch at a time made float and flipped, a
fused optimizer, channels_last for the convolutions, bf16 where the processor has it and that is asked for.

    python -m benchmarks.training.careful_loop CASE FOLDER EPOCHS PRECISION
"""

import contextlib
import sys
import time
from pathlib import Path

import torch
import torch._dynamo  # the first optimizer imports it: imports are not counted
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor

from benchmarks.training.cases import CASES, MEAN, SEED, STD, Case
from benchmarks.training.nets import make_net
from benchmarks.training.results import Result, say
from benchmarks.training.tutorial_data import Pairs, splits

# N rows, B rows in the batch, C channels, H height, W width


def main(case: Case, folder: Path, epochs: int, precision: str) -> Result:
    began = time.perf_counter()
    torch.manual_seed(SEED)
    training, validation, test = (in_memory(pairs) for pairs in splits(case, folder))
    is_cnn = case.name == "cnn"
    model = make_net(case.name)
    if is_cnn:
        model = model.to(memory_format=torch.channels_last)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=case.lr, momentum=case.momentum, fused=True)
    bf16 = precision == "auto" and torch.cpu._is_avx512_bf16_supported()
    mean, std = (255 * torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))

    def prepared(images_BCHW: Tensor) -> Tensor:
        if not is_cnn:
            return images_BCHW.float().mul_(1 / 255)
        return images_BCHW.contiguous(memory_format=torch.channels_last).float().sub_(mean).div_(std)

    def autocast() -> contextlib.AbstractContextManager[None]:
        return torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext()

    def measured(images_NCHW: Tensor, labels_N: Tensor) -> tuple[float, float]:
        model.eval()
        loss_sum, correct = 0.0, 0
        with torch.inference_mode(), autocast():
            for images_BCHW, labels_B in zip(images_NCHW.split(500), labels_N.split(500), strict=True):
                outputs = model(prepared(images_BCHW))
                loss_sum += criterion(outputs, labels_B).item() * len(labels_B)
                correct += int((outputs.argmax(1) == labels_B).sum().item())
        return loss_sum / len(labels_N), correct / len(labels_N)

    images_NCHW, labels_N = training
    rows, epochs_began = 0, time.perf_counter()
    for epoch in range(epochs):
        model.train()
        for index_B in torch.randperm(len(labels_N)).split(case.batch_size):
            images_BCHW = images_NCHW[index_B]
            if is_cnn:
                is_flipped = torch.rand(len(index_B)) < 0.5
                images_BCHW = torch.where(is_flipped.view(-1, 1, 1, 1), images_BCHW.flip(3), images_BCHW)
            with autocast():
                loss = criterion(model(prepared(images_BCHW)), labels_N[index_B])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rows += len(index_B)
        measured(*validation)
        torch.save(model.state_dict(), folder / f"careful-{epoch}.pt")
    epochs_s = time.perf_counter() - epochs_began
    _, accuracy = measured(*test)
    return Result(rows, epochs_s, time.perf_counter() - began, accuracy)


def in_memory(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """uint8 [N, C, H, W] and the labels, read once without the transforms."""
    _without_transforms(pairs)
    images, labels = zip(*((pil_to_tensor(image), label) for image, label in pairs), strict=True)
    return torch.stack(images), torch.tensor(labels)


def _without_transforms(pairs: Pairs) -> None:
    whole = getattr(pairs, "dataset", pairs)
    whole.transform = whole.transforms = None
    # torchvision's datasets apply `transform` in `__getitem__`, folders too.


if __name__ == "__main__":
    say(main(CASES[sys.argv[1]], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
