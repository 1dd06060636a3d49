"""Image transforms of torchvision.transforms.v2, and what each needs and does."""

from collections.abc import Callable
from math import inf
from typing import Any, Literal

import torch
from msgspec import Struct
from torchvision.transforms import v2

from core.nets.components.family import Family, Holds, Override

COMPOSE = "Compose"
RANDOM_APPLY = "RandomApply"
RANDOM_CHOICE = "RandomChoice"
RANDOM_ORDER = "RandomOrder"
TO_DTYPE = "ToDtype"


def to_tensor() -> v2.Transform:
    """Pixels as float32 in 0..1: what torchvision writes ToImage() and ToDtype(float32, scale=True) for."""
    return v2.ToDtype(torch.float32, scale=True)


def to_image() -> v2.Transform:
    """Pixels as they are: an image has been decoded to uint8 [channels, height, width] already."""
    return v2.Identity()


_BOXES = "it is for bounding boxes, and images here have labels"
_POINTS = "it is for key points, and images here have labels"
_DECODED = "images are tensors here from the start"
_WORD = "it is no transform; its members are written as words"
_HELD = Override("a transform is a component", Holds("transform"))
_DEGREES = Override("the signature's Sequence names no kind", float | tuple[float, float])

FAMILY = Family(
    name="transform",
    namespace=v2,
    types=(
        "Resize",
        "CenterCrop",
        "Pad",
        "RandomCrop",
        "RandomResizedCrop",
        "RandomResize",
        "RandomShortestSize",
        "ScaleJitter",
        "RandomZoomOut",
        "RandomHorizontalFlip",
        "RandomVerticalFlip",
        "RandomRotation",
        "RandomAffine",
        "RandomPerspective",
        "ElasticTransform",
        "ColorJitter",
        "RandomChannelPermutation",
        "RandomPhotometricDistort",
        "Grayscale",
        "RandomGrayscale",
        "RGB",
        "GaussianBlur",
        "GaussianNoise",
        "RandomInvert",
        "RandomPosterize",
        "RandomSolarize",
        "RandomAdjustSharpness",
        "RandomAutocontrast",
        "RandomEqualize",
        "RandomErasing",
        "JPEG",
        "AutoAugment",
        "RandAugment",
        "TrivialAugmentWide",
        "AugMix",
        "Normalize",
        "ToDtype",
        "ConvertImageDtype",
        "PILToTensor",
        "ToPureTensor",
        "Identity",
        COMPOSE,
        RANDOM_APPLY,
        RANDOM_CHOICE,
        RANDOM_ORDER,
        "MixUp",
        "CutMix",
    ),
    own={"ToTensor": to_tensor, "ToImage": to_image},
    absent={
        "Transform": "it is the base of transforms, not one",
        "Lambda": "it takes code; an operator may install a plugin",
        "FiveCrop": "it makes five images of one, and a row of a batch is one",
        "TenCrop": "it makes ten images of one, and a row of a batch is one",
        "LinearTransformation": "its matrix has (channels x height x width) squared numbers, too many for a "
        "spec; a first Linear layer can hold them",
        "ToPILImage": _DECODED,
        "RandomIoUCrop": _BOXES,
        "ClampBoundingBoxes": _BOXES,
        "ConvertBoundingBoxFormat": _BOXES,
        "SanitizeBoundingBoxes": _BOXES,
        "SetClampingMode": _BOXES,
        "ClampKeyPoints": _POINTS,
        "SanitizeKeyPoints": _POINTS,
        "UniformTemporalSubsample": "it is for videos",
        "InterpolationMode": f'{_WORD}: "interpolation": "bilinear"',
        "AutoAugmentPolicy": f'{_WORD}: "policy": "imagenet"',
    },
    left_out={
        "*.inplace": "it would write into the cached pixels",
        "*.expand": "it gives every sample its own size; rows of a batch need one",
        "*.labels_getter": "the labels are the dataset's",
    },
    overrides={
        "RandomRotation.degrees": _DEGREES,
        "RandomAffine.degrees": _DEGREES,
        "RandomErasing.value": Override(
            "the signature names one of the three kinds that it takes",
            float | list[float] | Literal["random"],
        ),
        **{f"{name}.transforms": _HELD for name in (COMPOSE, RANDOM_APPLY, RANDOM_CHOICE, RANDOM_ORDER)},
    },
    least={
        "size": 1,
        "max_size": 1,
        "min_size": 1,
        "target_size": 1,
        "num_output_channels": 1,
        "num_ops": 0,
        "num_magnitude_bins": 2,
        "num_classes": 1,
    },
)

Size = tuple[int, int]
#: The least and the greatest [height, width] that come out, for one that goes in.
Spread = Callable[[dict[str, Any], Size], tuple[Size, Size]]


class Fact(Struct, frozen=True):
    """What is known of a transform beyond its signature.

    One that is random draws from torch's generator: it runs per sample, never in `eval`. `range` names the
    keyword that makes it so, and one number there leaves it deterministic. `takes` is the kind of numbers it
    is made for; `is_cast` where it says itself which kind comes out. One that `keeps_size` may still change
    channels, if it `recolours`. `spread` is for those that give every sample a size of its own. One that
    `mixes` acts on a batch and its labels. A draw may pass over a value that another draw refuses: a plan
    `tries` so many.
    """

    is_random: bool = True
    range: str | None = None
    takes: Literal["any", "uint8", "float"] = "any"
    is_cast: bool = False
    keeps_size: bool = True
    recolours: bool = False
    spread: Spread | None = None
    mixes: bool = False
    tries: int = 1


def _resized(component: dict[str, Any], size: Size) -> tuple[Size, Size]:
    # torch.randint leaves max_size out
    height, width = size
    low, high = (
        (side, int(side * width / height)) if height <= width else (int(side * height / width), side)
        for side in (component["min_size"], component["max_size"] - 1)
    )
    return low, high


def _shortest(component: dict[str, Any], size: Size) -> tuple[Size, Size]:
    sides, longest = component["min_size"], component["max_size"] or inf
    sides = sides if isinstance(sides, list) else [sides]
    low, high = (
        _scaled(size, min(side / min(size), longest / max(size))) for side in (min(sides), max(sides))
    )
    return low, high


def _jittered(component: dict[str, Any], size: Size) -> tuple[Size, Size]:
    # torchvision's code reads target_size as (width, height), whatever its documentation says.
    width, height = component["target_size"]
    fit = min(height / size[0], width / size[1])
    low, high = (_scaled(size, fit * torch.tensor(scale)) for scale in component["scale_range"])
    return low, high


def _zoomed_out(component: dict[str, Any], size: Size) -> tuple[Size, Size]:
    least, most = (_scaled(size, torch.tensor(side)) for side in component["side_range"])
    return (size if component["p"] < 1 else least), most


def _scaled(size: Size, by: float | torch.Tensor) -> Size:
    """Rounded as torchvision does: down, in float32 where the factor is a tensor."""
    return int(size[0] * by), int(size[1] * by)


_FIXED = Fact(is_random=False)
_FLOAT = Fact(takes="float")
_SIZED = Fact(is_random=False, keeps_size=False)
_DRAWN = Fact(tries=8)
_CAST = Fact(is_random=False, is_cast=True)

#: Those that aren't here are random, keep the size, and take any pixels.
FACTS: dict[str, Fact] = {
    "Resize": _SIZED,
    "CenterCrop": _SIZED,
    "Pad": _SIZED,
    "RandomCrop": Fact(keeps_size=False),
    "RandomResizedCrop": Fact(keeps_size=False),
    "RandomResize": Fact(keeps_size=False, spread=_resized),
    "RandomShortestSize": Fact(keeps_size=False, spread=_shortest),
    "ScaleJitter": Fact(keeps_size=False, spread=_jittered),
    "RandomZoomOut": Fact(keeps_size=False, spread=_zoomed_out),
    "Grayscale": Fact(is_random=False, recolours=True),
    "RGB": Fact(is_random=False, recolours=True),
    "GaussianBlur": Fact(range="sigma"),
    "JPEG": Fact(range="quality", takes="uint8"),
    "GaussianNoise": _FLOAT,
    "RandomErasing": _FLOAT,
    "AutoAugment": _DRAWN,
    "RandAugment": _DRAWN,
    "TrivialAugmentWide": _DRAWN,
    "AugMix": Fact(tries=3),
    "Normalize": Fact(is_random=False, takes="float"),
    TO_DTYPE: _CAST,
    "ConvertImageDtype": _CAST,
    "ToTensor": _CAST,
    "ToImage": _FIXED,
    "PILToTensor": _FIXED,
    "ToPureTensor": _FIXED,
    "Identity": _FIXED,
    "MixUp": Fact(takes="float", mixes=True),
    "CutMix": Fact(takes="float", mixes=True),
}

#: The greatest numbers that are taken: what torchvision makes of them grows with them, not with the image.
MOST: dict[str, int] = {
    "GaussianBlur.kernel_size": 127,
    "ElasticTransform.sigma": 15,
    "RandomCrop.padding": 1024,
    "RandAugment.num_ops": 16,
    "RandAugment.num_magnitude_bins": 1000,
    "TrivialAugmentWide.num_magnitude_bins": 1000,
    "AugMix.mixture_width": 16,
    "AugMix.chain_depth": 16,
}
