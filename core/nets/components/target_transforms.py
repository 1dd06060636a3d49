"""Target transforms: what is done to the target before the loss sees it. All are ours."""

from core.data import target_transforms
from core.nets.components.family import Family, Override

FAMILY = Family(
    name="target_transform",
    namespace=target_transforms,
    types=("Map", "OneHot", "Bin", "Standardize", "Log1p"),
    overrides={"Bin.quantiles": Override("fewer than two classes tell nothing apart", int | None)},
    least={"Bin.quantiles": 2},
)
