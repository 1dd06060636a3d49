"""From a checked component to torch's object: nets and losses.

Layers are made strictly in the order of the spec, so that the same torch seed gives the same first weights
as a hand-written script, and the `state_dict` the same keys.
"""

from typing import Any

import torch
from torch import nn

from core.nets import registry
from core.nets.components.layers import GRAPH
from core.nets.modules.graph import build_graph
from core.nets.modules.losses import OneHotTargets

Component = dict[str, Any]


def build_net(model: Component) -> nn.Module:
    """The net of a resolved spec (every size filled in), on torch's current default device."""
    if model["type"] == GRAPH:
        return build_graph(model, build_net)
    net: nn.Module = registry.construct("model", model, build=build_net)
    return net


def build_loss(loss: Component, *, is_one_hot: bool = False) -> nn.Module:
    """The loss of a resolved spec, on the CPU. With `is_one_hot` it takes class indices [B] all the same."""
    weights, pos_weight = loss.get("class_weights"), loss.get("pos_weight")
    if pos_weight is not None:
        loss = loss | {"pos_weight": torch.tensor(pos_weight)}
    module: nn.Module = registry.construct("loss", loss)
    if weights is not None:
        module.weight = torch.tensor(weights)  # a buffer of torch's, so it moves along with the module
    return OneHotTargets(module) if is_one_hot else module
