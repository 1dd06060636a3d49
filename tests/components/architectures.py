"""Every architecture on eight of the smallest images it takes: over fewer values a batch norm's gradients
explode, whoever trains it."""

from torchvision import models

from tests.attempts import arrays, c
from tests.components.example import ROWS, Example

#: Images are 32 pixels a side where nothing is said.
_SIDES = {"alexnet": 63, "inception_v3": 75, "maxvit": 224, "vit_b_16": 16, "vit_l_16": 16, "vit_h_14": 14}
_DEEP_PARAMETERS = 30_000_000


def example(name: str) -> Example:
    """torchvision's own count of parameters says which take too long for every day."""
    side = next((side for start, side in _SIDES.items() if name.startswith(start)), 32)
    rows = 2 if side > 100 else ROWS
    weights = models.get_model_weights(name).DEFAULT
    return Example(
        {"model": c(name), "optimizer": c("SGD", lr=1e-4)},
        arrays([3, side, side], classes=2, dtype="uint8", train=rows, validation=rows),
        rows=rows,
        is_deep=weights.meta["num_params"] > _DEEP_PARAMETERS,
    )


EXAMPLES = {name: example(name) for name in models.list_models(module=models)}
