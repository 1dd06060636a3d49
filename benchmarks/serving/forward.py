"""The net alone, in plain PyTorch: what it answers, and how many images a second it takes at each batch size.

    python -m benchmarks.serving.forward CASE FOLDER SECONDS

Reads weights.pt, pictures.npy and perhaps the JPEGs of FOLDER; its last line of output is a `Forward`."""

import io
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor

from benchmarks.serving.nets import load_net, prepared
from benchmarks.serving.results import Forward

# N images, B images in the batch, C channels, H height, W width, K classes

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
WARM_UPS = 2
LEAST_TURNS = 3

T = TypeVar("T")


def main(case: str, folder: Path, seconds: float) -> Forward:
    """With no seconds it only answers."""
    net = load_net(case, folder / "weights.pt")
    images_NCHW = torch.from_numpy(np.load(folder / "pictures.npy"))
    jpegs = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    with torch.inference_mode():
        scores_NK = torch.softmax(net(prepared(case, images_NCHW)), 1)
        scores_of_jpegs = torch.softmax(net(prepared(case, decoded(jpegs))), 1).tolist() if jpegs else []
        rates = measured(case, net, images_NCHW, jpegs, seconds) if seconds else {}
    return Forward(scores_NK.tolist(), scores_of_jpegs, rates)


def measured(
    case: str, net: nn.Module, images_NCHW: Tensor, jpegs: Sequence[bytes], seconds: float
) -> dict[str, dict[int, float]]:
    inputs_NCHW = prepared(case, images_NCHW)
    rates = {"forward": {size: rate(net, size, repeated(inputs_NCHW, size), seconds) for size in BATCH_SIZES}}
    if jpegs:

        def decode_then_forward(batch: list[bytes]) -> Tensor:
            return net(prepared(case, decoded(batch)))

        rates["decode + forward"] = {
            size: rate(decode_then_forward, size, [jpegs[i % len(jpegs)] for i in range(size)], seconds)
            for size in BATCH_SIZES
        }
    if images_NCHW.shape[1] > 1:
        net.to(memory_format=torch.channels_last)
        rates["forward, channels_last"] = {
            size: rate(net, size, repeated(inputs_NCHW, size, torch.channels_last), seconds)
            for size in BATCH_SIZES
        }
    return rates


def rate(run: Callable[[T], object], size: int, batch: T, seconds: float) -> float:
    """Images a second."""
    for _ in range(WARM_UPS):
        run(batch)
    turns, began = 0, time.perf_counter()
    while turns < LEAST_TURNS or time.perf_counter() - began < seconds:
        run(batch)
        turns += 1
    return turns * size / (time.perf_counter() - began)


def repeated(
    inputs_NCHW: Tensor, size: int, memory_format: torch.memory_format = torch.contiguous_format
) -> Tensor:
    places = torch.arange(size) % len(inputs_NCHW)
    return inputs_NCHW[places].contiguous(memory_format=memory_format)


def decoded(jpegs: Sequence[bytes]) -> Tensor:
    """uint8 [B, C, H, W]"""
    return torch.stack([pil_to_tensor(Image.open(io.BytesIO(jpeg)).convert("RGB")) for jpeg in jpegs])


if __name__ == "__main__":
    found = main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
