"""Which of torchvision's datasets can be fetched, with what arguments. One table; no torch.

The class itself downloads (`workers.fetch`). A class that torchvision has and that stands in neither
`FETCHED` nor `LEFT_OUT` fails a test.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from core.errors import Invalid
from core.faults import fault, join, show, suggestion
from modelyard.specs import ProblemError, TorchvisionSource


@dataclass(frozen=True)
class FetchedSet:
    """`splits` are ours, with the arguments by which the class gives each; `options` are arguments that a
    user may choose, each with its choices, the first of them the default. `holds`: `arrays`, one tensor
    of equal images, or `files`."""

    holds: Literal["arrays", "files"]
    splits: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, tuple[str | int, ...]] = field(default_factory=lambda: MappingProxyType({}))


_BY_TRAIN = {"train": {"train": True}, "test": {"train": False}}
_WHOLE: dict[str, dict[str, Any]] = {"train": {}}


def _by_split(**names: str) -> dict[str, dict[str, Any]]:
    return {ours: {"split": theirs} for ours, theirs in names.items()}


FETCHED: Mapping[str, FetchedSet] = {
    "CIFAR10": FetchedSet("arrays", _BY_TRAIN),
    "CIFAR100": FetchedSet("arrays", _BY_TRAIN),
    "Caltech101": FetchedSet("files", _WHOLE),
    "Caltech256": FetchedSet("files", _WHOLE),
    "Country211": FetchedSet("files", _by_split(train="train", val="valid", test="test")),
    "DTD": FetchedSet(
        "files", _by_split(train="train", val="val", test="test"), {"partition": tuple(range(1, 11))}
    ),
    "EMNIST": FetchedSet(
        "arrays", _BY_TRAIN, {"split": ("balanced", "byclass", "bymerge", "letters", "digits", "mnist")}
    ),
    "EuroSAT": FetchedSet("files", _WHOLE),
    "FGVCAircraft": FetchedSet(
        "files",
        _by_split(train="train", val="val", test="test"),
        {"annotation_level": ("variant", "family", "manufacturer")},
    ),
    "FashionMNIST": FetchedSet("arrays", _BY_TRAIN),
    "Flowers102": FetchedSet("files", _by_split(train="train", val="val", test="test")),
    "Food101": FetchedSet("files", _by_split(train="train", test="test")),
    "GTSRB": FetchedSet("files", _by_split(train="train", test="test")),
    "Imagenette": FetchedSet(
        "files", _by_split(train="train", val="val"), {"size": ("full", "320px", "160px")}
    ),
    "KMNIST": FetchedSet("arrays", _BY_TRAIN),
    "MNIST": FetchedSet("arrays", _BY_TRAIN),
    "OxfordIIITPet": FetchedSet("files", _by_split(train="trainval", test="test")),
    "QMNIST": FetchedSet("arrays", {"train": {"what": "train"}, "test": {"what": "test"}}),
    "RenderedSST2": FetchedSet("files", _by_split(train="train", val="val", test="test")),
    "SEMEION": FetchedSet("arrays", _WHOLE),
    "STL10": FetchedSet("arrays", _by_split(train="train", test="test")),
    "SUN397": FetchedSet("files", _WHOLE),
    "SVHN": FetchedSet("arrays", _by_split(train="train", test="test")),
    "USPS": FetchedSet("arrays", _BY_TRAIN),
}

_MANUAL = "torchvision does not download it: get it by hand and upload it"
_DRIVE = "it lies on Google Drive, which serves programs only with the package gdown; upload it"
_VIDEO = "it holds videos, not images"
_LARGE = "it is larger than an upload may be; upload a part of it"
_NO_CLASSES = "its targets are neither classes nor numbers"
_PAIRS = "its rows are pairs or sequences of images with flow, depth or a match between them"

#: Why each of the others is not fetched.
LEFT_OUT: Mapping[str, str] = {
    "CLEVRClassification": _LARGE,
    "CREStereo": _PAIRS,
    "CarlaStereo": _PAIRS,
    "CelebA": _DRIVE,
    "Cityscapes": _MANUAL,
    "CocoCaptions": _NO_CLASSES,
    "CocoDetection": _NO_CLASSES,
    "DatasetFolder": "it reads a folder: upload the folder",
    "ETH3DStereo": _PAIRS,
    "FER2013": _MANUAL,
    "FakeData": "its images are noise",
    "FallingThingsStereo": _PAIRS,
    "Flickr30k": _NO_CLASSES,
    "Flickr8k": _NO_CLASSES,
    "FlyingChairs": _PAIRS,
    "FlyingThings3D": _PAIRS,
    "HD1K": _PAIRS,
    "HMDB51": _VIDEO,
    "INaturalist": _LARGE,
    "ImageFolder": "it reads a folder: upload the folder",
    "ImageNet": _MANUAL,
    "InStereo2k": _PAIRS,
    "Kinetics": _VIDEO,
    "Kitti": _NO_CLASSES,
    "Kitti2012Stereo": _PAIRS,
    "Kitti2015Stereo": _PAIRS,
    "KittiFlow": _PAIRS,
    "LFWPairs": _PAIRS,
    "LFWPeople": "its site is gone; get it by hand and upload it",
    "LSUN": _MANUAL,
    "LSUNClass": _MANUAL,
    "Middlebury2014Stereo": _PAIRS,
    "MovingMNIST": _VIDEO,
    "Omniglot": "its two parts share no class, so none can test what the other trained",
    "PCAM": _DRIVE,
    "PhotoTour": _PAIRS,
    "Places365": _LARGE,
    "SBDataset": _NO_CLASSES,
    "SBU": _NO_CLASSES,
    "SceneFlowStereo": _PAIRS,
    "Sintel": _PAIRS,
    "SintelStereo": _PAIRS,
    "StanfordCars": "its site is gone; get it by hand and upload it",
    "UCF101": _VIDEO,
    "VOCDetection": _NO_CLASSES,
    "VOCSegmentation": _NO_CLASSES,
    "VisionDataset": "it is the base of the others",
    "WIDERFace": _NO_CLASSES,
    "wrap_dataset_for_transforms_v2": "it is a function",
}


def complete(source: TorchvisionSource) -> TorchvisionSource:
    """With the defaults filled in. Raises `Invalid` with a pointer to each thing that cannot be."""
    errors: list[ProblemError] = []
    known = FETCHED.get(source.dataset)
    if known is None:
        fault(errors, "/source/dataset", "unknown_dataset", _why_unknown(source.dataset))
    else:
        _check_options(source, known, errors)
    if errors or known is None:
        raise Invalid("; ".join(error.message for error in errors), code=errors[0].code, errors=errors)
    defaults = {name: choices[0] for name, choices in known.options.items()}
    return TorchvisionSource(source.dataset, {**defaults, **source.options})


def _why_unknown(name: str) -> str:
    if name in LEFT_OUT:
        return f"{name} is not fetched: {LEFT_OUT[name]}"
    return (
        f"torchvision has no dataset {show(name)} that can be fetched.{suggestion(name, FETCHED)} "
        f"There are {', '.join(sorted(FETCHED))}"
    )


def _check_options(source: TorchvisionSource, known: FetchedSet, errors: list[ProblemError]) -> None:
    for name, value in source.options.items():
        choices = known.options.get(name)
        if choices is None:
            takes = ", ".join(known.options) or "none"
            message = f"{source.dataset} takes no option {show(name)}; it takes {takes}"
            fault(errors, join("/source/options", name), "unknown_option", message)
        elif isinstance(value, bool) or value not in choices:
            message = f"expected one of {', '.join(map(show, choices))}, got {show(value)}"
            fault(errors, join("/source/options", name), "bad_option", message)
