"""Architectures: torchvision's classification models by name.

Their builders hide the keywords in `**kwargs`, and most of a class's own are the builder's to set; what a
spec may say stands here as extras.
"""

from functools import partial
from typing import Any, Literal

import torch
from msgspec import Struct
from torchvision import models
from torchvision.models import regnet

from core.nets.components.family import Extra, Family


class Upload(Struct, forbid_unknown_fields=True, frozen=True):
    """Weights that a user uploaded: a `state_dict` saved by torch."""

    upload: str


_HAS_DROPOUT = (
    "alexnet",
    "googlenet",
    "inception_v3",
    "mnasnet",
    "mobilenet",
    "squeezenet",
    "swin",
    "vgg",
    "vit",
    "efficientnet",
)

#: Their auxiliary outputs would make the output a tuple; their first weights are as torchvision makes them.
_SINGLE_OUTPUT = ("googlenet", "inception_v3")


def _single_output(make: Any, weights: Any, **keywords: Any) -> Any:
    # Their pretrained weights were trained on images scaled another way, which the net then undoes.
    return make(aux_logits=False, init_weights=True, transform_input=weights == "DEFAULT", **keywords)


NAMES = tuple(models.list_models(module=models))


def _extras(name: str) -> dict[str, Extra]:
    hidden = "builders take it out of **kwargs; left out it is "
    extras = {
        "num_classes": Extra(f"{hidden}what the dataset asks for", int, is_passed=True, is_optional=True),
        "weights": Extra(
            "torchvision's own pretrained weights, or an upload",
            Literal["DEFAULT"] | Upload | None,
            None,
            is_passed=name in _SINGLE_OUTPUT,
        ),
    }
    if name.startswith(_HAS_DROPOUT):
        extras["dropout"] = Extra(f"{hidden}the builder's", float, is_passed=True, is_optional=True)
    if name.startswith("vit_"):
        extras["image_size"] = Extra(f"{hidden}the images'", int, is_passed=True, is_optional=True)
    return extras


FAMILY = Family(
    name="architecture",
    namespace=models,
    types=NAMES,
    own={name: partial(_single_output, getattr(models, name)) for name in _SINGLE_OUTPUT},
    signatures={name: getattr(models, name) for name in _SINGLE_OUTPUT},
    left_out={"*.progress": "a worker has no terminal", "*.kwargs": "they are the builder's to set"},
    extras={f"{name}.{word}": extra for name in NAMES for word, extra in _extras(name).items()},
    least={"num_classes": 1, "image_size": 1},
)


def _block_params_on_cpu(cls: Any, *args: Any, **keywords: Any) -> Any:
    with torch.device("cpu"):
        return _block_params(cls, *args, **keywords)


# torchvision computes a RegNet's widths with tensors and reads them back; on meta there are no numbers.
_block_params = regnet.BlockParams.from_init_params.__func__
regnet.BlockParams.from_init_params = classmethod(_block_params_on_cpu)
