"""The nets of the cases as a plain script writes them; their `state_dict` is what the service gives away."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from benchmarks.training.cases import MEAN, STD
from benchmarks.training.nets import make_net as make_trained_net

# B images in the batch, C channels, H height, W width


def load_net(case: str, weights: Path) -> nn.Module:
    net = make_net(case)
    net.load_state_dict(torch.load(weights, weights_only=True))
    return net.eval()


def make_net(case: str) -> nn.Module:
    match case:
        case "mlp":
            return make_trained_net("mlp")
        case "cnn":
            *blocks, flatten, linear = make_trained_net("cnn").children()
            return nn.Sequential(*(layer for block in blocks for layer in block.children()), flatten, linear)
        case "resnet18":
            return resnet18(num_classes=10)
    raise ValueError(f"expected mlp, cnn or resnet18, got {case!r}")


def prepared(case: str, images_BCHW: Tensor) -> Tensor:
    """From pixels of 0 to 255 to what the net was trained on."""
    scaled_BCHW = images_BCHW.float() / 255
    if case == "mlp":
        return scaled_BCHW
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (scaled_BCHW - mean) / std
