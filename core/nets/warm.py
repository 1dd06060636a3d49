"""Pays the first call's price (torch.optim, torch._dynamo, torchvision) before anyone waits for it."""

from core.data.manifest import Kind, Manifest
from core.nets.plan import Source, check
from modelyard.specs import Feature


def warm() -> None:
    """Check one small job with every kind of part in it. Takes about a second in a fresh process, then a few
    milliseconds."""
    manifest = Manifest(
        format="image_folder",
        kind=Kind.IMAGES,
        splits={"train": 20},
        features={"image": Feature("uint8", [3, 10, 10]), "label": Feature("int64", [])},
        data_sha256="",
        data_bytes=0,
        classes=["a", "b"],
        image_mode="RGB",
        image_sizes=[(10, 10, 20)],
    )
    layers = [
        {"type": "Conv2d", "out_channels": 2, "kernel_size": 3},
        {"type": "BatchNorm2d"},
        {"type": "ReLU"},
        {"type": "MaxPool2d", "kernel_size": 2},
        {"type": "Dropout"},
        {"type": "Flatten"},
        {"type": "Linear", "out_features": 2},
    ]
    transforms = [
        {"type": "Resize", "size": [8, 8]},
        {"type": "Grayscale"},
        {"type": "RandomHorizontalFlip"},
        {"type": "RandomRotation", "degrees": 10},
        {"type": "Normalize", "mean": [0.5], "std": [0.5]},
    ]
    spec = {
        "name": "warm",
        "dataset": "warm",
        "model": {"type": "Sequential", "layers": layers},
        "transforms": {"train": transforms},
        "scheduler": {"type": "StepLR", "step_size": 1},
    }
    for optimizer in ("SGD", "AdamW"):
        check(spec | {"optimizer": {"type": optimizer}}, Source("warm@1", manifest))
