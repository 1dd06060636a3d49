"""Where a component is documented by those who wrote it."""

from core.nets.components.family import Family

_TORCH = "https://docs.pytorch.org/docs/stable"
_VISION = "https://docs.pytorch.org/vision/stable"
_METRICS = "https://lightning.ai/docs/torchmetrics/stable"

_PAGES: dict[str, str] = {
    "layer": _TORCH + "/generated/torch.nn.{name}.html",
    "loss": _TORCH + "/generated/torch.nn.{name}.html",
    "optimizer": _TORCH + "/generated/torch.optim.{name}.html",
    "scheduler": _TORCH + "/generated/torch.optim.lr_scheduler.{name}.html",
    "initializer": _TORCH + "/nn.init.html#torch.nn.init.{name}",
    "sampler": _TORCH + "/data.html#torch.utils.data.{name}",
    "transform": _VISION + "/generated/torchvision.transforms.v2.{name}.html",
    "architecture": _VISION + "/models/generated/torchvision.models.{name}.html",
    "metric": _METRICS + "/all-metrics.html",
}
#: Named as functions of torch's: their pages are those of torch.
_FUNCTIONS = frozenset({"add", "mul", "cat", "matmul", "mean", "chunk"})


def source_of(family: Family, name: str) -> str | None:
    """The page of torch, torchvision or torchmetrics; None for what is ours."""
    if family.name == "layer" and name in _FUNCTIONS:
        return f"{_TORCH}/generated/torch.{name}.html"
    if not hasattr(family.namespace, name) or family.name not in _PAGES:
        return None
    return _PAGES[family.name].format(name=name)
