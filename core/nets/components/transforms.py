"""Image transforms of torchvision.transforms.v2, and what each needs and does."""

from torchvision.transforms import v2

from core.nets.components.family import Family, Override

FAMILY = Family(
    name="transform",
    namespace=v2,
    types=("Resize", "Grayscale", "RandomHorizontalFlip", "RandomRotation", "Normalize", "ToDtype"),
    left_out={
        "*.inplace": "it would write into the cached pixels",
        "*.expand": "it gives every sample its own size; rows of a batch need one",
    },
    overrides={
        "RandomRotation.degrees": Override(
            "the signature's Sequence names no kind", float | tuple[float, float]
        ),
        "RandomRotation.fill": Override(
            "the signature also takes a dict by Python type", float | list[float] | None
        ),
    },
    least={"size": 1, "max_size": 1, "num_output_channels": 1},
)

TO_DTYPE = "ToDtype"
#: Draw from torch's generator: run per sample, never in `eval`.
RANDOM = frozenset({"RandomHorizontalFlip", "RandomRotation"})
#: Refuse uint8: pixels are made float32 in 0..1 before them.
NEEDS_FLOAT = frozenset({"Normalize"})
#: Change the size; the others keep height and width.
RESIZES = frozenset({"Resize"})
