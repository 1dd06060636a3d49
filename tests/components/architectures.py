"""Every architecture on two of the smallest images it takes."""

from torchvision import models

from tests.attempts import arrays, c
from tests.components.example import Example

#: Images are 32 pixels a side where nothing is said. Windows of swin are no smaller than what is left.
_SIDES = {"alexnet": 63, "inception_v3": 75, "maxvit": 224, "vit_b_16": 16, "vit_l_16": 16, "vit_h_14": 14}
_DEEP_PARAMETERS = 30_000_000
#: A batch norm over two values has gradients of up to 1e7: the rate is for one step of any net.
_RATE = 1e-8


def example(name: str) -> Example:
    """torchvision's own count of parameters says which take too long for every day."""
    side = next((side for start, side in _SIDES.items() if name.startswith(start)), 32)
    weights = models.get_model_weights(name).DEFAULT
    return Example(
        {"model": c(name), "optimizer": c("SGD", lr=_RATE), "trainer": {"batch_size": 2}},
        arrays([3, side, side], classes=2, dtype="uint8", train=2, validation=2),
        rows=2,
        is_deep=weights.meta["num_params"] > _DEEP_PARAMETERS,
    )


EXAMPLES = {name: example(name) for name in models.list_models(module=models)}
