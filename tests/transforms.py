"""Every transform a spec may name, with arguments that do something, and the same by hand."""

from typing import Any

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import AutoAugmentPolicy, InterpolationMode

Component = dict[str, Any]

_BILINEAR = InterpolationMode.BILINEAR

#: The keywords of a spec, and torchvision's own object. Images are 28 x 28 or larger.
EXAMPLES: dict[str, tuple[Component, v2.Transform]] = {
    "Resize": ({"size": [20, 18]}, v2.Resize([20, 18])),
    "CenterCrop": ({"size": 16}, v2.CenterCrop(16)),
    "Pad": ({"padding": [1, 2], "fill": 7}, v2.Pad([1, 2], fill=7)),
    "RandomCrop": ({"size": 28, "padding": 4}, v2.RandomCrop(28, padding=4)),
    "RandomResizedCrop": ({"size": [14, 12]}, v2.RandomResizedCrop([14, 12])),
    "RandomResize": ({"min_size": 20, "max_size": 40}, v2.RandomResize(20, 40)),
    "RandomShortestSize": ({"min_size": [20, 33], "max_size": 50}, v2.RandomShortestSize([20, 33], 50)),
    "ScaleJitter": (
        {"target_size": [30, 32], "scale_range": [0.7, 1.6]},
        v2.ScaleJitter((30, 32), scale_range=(0.7, 1.6)),
    ),
    "RandomZoomOut": ({"side_range": [1.2, 2.0], "p": 0.8}, v2.RandomZoomOut(side_range=(1.2, 2.0), p=0.8)),
    "RandomHorizontalFlip": ({}, v2.RandomHorizontalFlip()),
    "RandomVerticalFlip": ({"p": 0.4}, v2.RandomVerticalFlip(p=0.4)),
    "RandomRotation": (
        {"degrees": [-30, 60], "interpolation": "bilinear"},
        v2.RandomRotation((-30, 60), interpolation=_BILINEAR),
    ),
    "RandomAffine": (
        {"degrees": 20, "translate": [0.1, 0.2], "scale": [0.8, 1.2], "shear": 5},
        v2.RandomAffine(20, translate=(0.1, 0.2), scale=(0.8, 1.2), shear=5),
    ),
    "RandomPerspective": ({"p": 0.9}, v2.RandomPerspective(p=0.9)),
    "ElasticTransform": ({"alpha": 40.0, "sigma": 3.0}, v2.ElasticTransform(alpha=40.0, sigma=3.0)),
    "ColorJitter": (
        {"brightness": 0.4, "contrast": [0.5, 1.5], "saturation": 0.2, "hue": 0.1},
        v2.ColorJitter(brightness=0.4, contrast=(0.5, 1.5), saturation=0.2, hue=0.1),
    ),
    "RandomChannelPermutation": ({}, v2.RandomChannelPermutation()),
    "RandomPhotometricDistort": ({}, v2.RandomPhotometricDistort()),
    "Grayscale": ({"num_output_channels": 3}, v2.Grayscale(3)),
    "RandomGrayscale": ({"p": 0.5}, v2.RandomGrayscale(p=0.5)),
    "RGB": ({}, v2.RGB()),
    "GaussianBlur": ({"kernel_size": [5, 3]}, v2.GaussianBlur((5, 3))),
    "GaussianNoise": ({"sigma": 0.2}, v2.GaussianNoise(sigma=0.2)),
    "RandomInvert": ({}, v2.RandomInvert()),
    "RandomPosterize": ({"bits": 3}, v2.RandomPosterize(bits=3)),
    "RandomSolarize": ({"threshold": 100}, v2.RandomSolarize(threshold=100)),
    "RandomAdjustSharpness": ({"sharpness_factor": 3}, v2.RandomAdjustSharpness(3)),
    "RandomAutocontrast": ({}, v2.RandomAutocontrast()),
    "RandomEqualize": ({}, v2.RandomEqualize()),
    "RandomErasing": ({"p": 0.9, "value": "random"}, v2.RandomErasing(p=0.9, value="random")),
    "JPEG": ({"quality": [10, 60]}, v2.JPEG((10, 60))),
    "AutoAugment": ({"policy": "cifar10"}, v2.AutoAugment(AutoAugmentPolicy.CIFAR10)),
    "RandAugment": ({"num_ops": 3}, v2.RandAugment(num_ops=3)),
    "TrivialAugmentWide": ({}, v2.TrivialAugmentWide()),
    "AugMix": ({"severity": 5}, v2.AugMix(severity=5)),
    "Normalize": ({"mean": [0.4], "std": [0.3]}, v2.Normalize([0.4], [0.3])),
    "ToDtype": ({"dtype": "float32", "scale": True}, v2.ToDtype(torch.float32, scale=True)),
    "ConvertImageDtype": ({}, v2.ConvertImageDtype(torch.float32)),
    "ToTensor": ({}, v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()])),
    "ToImage": ({}, v2.Compose([v2.ToImage(), v2.ToPureTensor()])),
    "PILToTensor": ({}, v2.PILToTensor()),
    "ToPureTensor": ({}, v2.ToPureTensor()),
    "Identity": ({}, v2.Identity()),
    "Compose": (
        {"transforms": [{"type": "Resize", "size": [20, 20]}, {"type": "CenterCrop", "size": 16}]},
        v2.Compose([v2.Resize([20, 20]), v2.CenterCrop(16)]),
    ),
    "RandomApply": (
        {"transforms": [{"type": "GaussianBlur", "kernel_size": 3}, {"type": "RandomInvert"}], "p": 0.6},
        v2.RandomApply([v2.GaussianBlur(3), v2.RandomInvert()], p=0.6),
    ),
    "RandomChoice": (
        {"transforms": [{"type": "RandomRotation", "degrees": 9}, {"type": "Identity"}], "p": [2, 1]},
        v2.RandomChoice([v2.RandomRotation(9), v2.Identity()], p=[2, 1]),
    ),
    "RandomOrder": (
        {"transforms": [{"type": "RandomSolarize", "threshold": 99}, {"type": "RandomPosterize", "bits": 2}]},
        v2.RandomOrder([v2.RandomSolarize(99), v2.RandomPosterize(2)]),
    ),
}

#: They act on a batch and its labels: `test_mixing.py` has them.
MIXING = ("MixUp", "CutMix")
#: They give every image a size of its own, which a later transform must end.
SPREADING = ("RandomResize", "RandomShortestSize", "ScaleJitter", "RandomZoomOut")
#: As they stand above; all others draw.
DETERMINISTIC = frozenset(
    {
        "Resize",
        "CenterCrop",
        "Pad",
        "Grayscale",
        "RGB",
        "Normalize",
        "ToDtype",
        "ConvertImageDtype",
        "ToTensor",
        "ToImage",
        "PILToTensor",
        "ToPureTensor",
        "Identity",
        "Compose",
    }
)
RESIZED: Component = {"type": "Resize", "size": [15, 13]}
RANDOM = [name for name in EXAMPLES if name not in DETERMINISTIC]


def component(name: str) -> Component:
    return {"type": name, **EXAMPLES[name][0]}


def spec_of(name: str) -> tuple[list[Component], list[Component]]:
    """The transform, with a Resize where sizes are random; and an eval that ends with the same size."""
    if name in MIXING:
        return [{"type": name}], []
    if name in SPREADING:
        return [component(name), RESIZED], [RESIZED]
    if name == "RandomResizedCrop":
        return [component(name)], [{"type": "Resize", "size": [14, 12]}]
    if name == "RandomCrop":
        return [component(name)], [{"type": "CenterCrop", "size": 28}]
    return [component(name)], [] if name in RANDOM else [component(name)]
