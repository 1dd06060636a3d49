"""The nets of the cases as a plain script writes them."""

from torch import nn


def make_net(case: str) -> nn.Module:
    match case:
        case "mlp":
            return nn.Sequential(
                nn.Flatten(),
                nn.Linear(784, 512),
                nn.ReLU(),
                nn.Linear(512, 512),
                nn.ReLU(),
                nn.Linear(512, 10),
            )
        case "cnn":
            blocks = [_block(before, width) for before, width in ((3, 32), (32, 64), (64, 128))]
            return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(16 * 128, 10))
        case "photos":
            return nn.Sequential(
                nn.Conv2d(3, 16, 8, stride=8),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(16, 32, 3, stride=2),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(32 * 6 * 6, 10),
            )
    raise ValueError(f"expected mlp, cnn or photos, got {case!r}")


def _block(before: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)
    )
