"""From a checked component to torch's object: nets, losses, optimizers, schedules.

Layers are made strictly in the order of the spec, so that the same torch seed gives the same first weights
as a hand-written `nn.Sequential`, and its `state_dict` the same keys.
"""

from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from core.nets import registry
from core.nets.components.layers import SEQUENTIAL

Component = dict[str, Any]


def build_net(model: Component) -> nn.Module:
    """The net of a resolved spec (every size filled in), on torch's current default device."""
    if model["type"] == SEQUENTIAL:
        return nn.Sequential(*[build_net(layer) for layer in model["layers"]])
    layer: nn.Module = registry.construct("layer", model)
    return layer


def build_loss(loss: Component) -> nn.Module:
    module: nn.Module = registry.construct("loss", loss)
    return module


def build_optimizer(optimizer: Component, net: nn.Module) -> Optimizer:
    """Raises ValueError for a net without parameters, and for values torch refuses."""
    made: Optimizer = registry.construct("optimizer", optimizer, net.parameters())
    return made


def build_scheduler(scheduler: Component | None, optimizer: Optimizer) -> LRScheduler | None:
    """Whether it is stepped once an epoch or once a step stands in `scheduler["interval"]`."""
    if scheduler is None:
        return None
    made: LRScheduler = registry.construct("scheduler", scheduler, optimizer)
    return made
