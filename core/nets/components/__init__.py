"""The allow-lists: which of torch's classes a spec may name, and where their signatures need a word."""

from core.nets.components import layers, losses, optimizers, schedulers, transforms
from core.nets.components.family import Family

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        layers.FAMILY,
        losses.FAMILY,
        optimizers.FAMILY,
        schedulers.FAMILY,
        transforms.FAMILY,
    )
}
