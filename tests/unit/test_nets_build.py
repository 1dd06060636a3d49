"""Building: the same seed gives the weights and the keys of a hand-written script."""

import pytest
import torch
from torch import nn

from core.nets.build import build_loss, build_net
from core.nets.clock import Clock
from core.nets.optimization import build_optimizer
from core.nets.plan import Source, check
from core.nets.schedules import build_scheduler
from tests.manifests import images


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(8, 16, 3), nn.GELU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(16, 10),
    )


LAYERS = [
    {"type": "Conv2d", "out_channels": 8, "kernel_size": 3, "padding": 1},
    {"type": "BatchNorm2d"},
    {"type": "ReLU"},
    {"type": "MaxPool2d", "kernel_size": 2},
    {
        "type": "Sequential",
        "layers": [{"type": "Conv2d", "out_channels": 16, "kernel_size": 3}, {"type": "GELU"}],
    },
    {"type": "AdaptiveAvgPool2d", "output_size": 1},
    {"type": "Flatten"},
    {"type": "Dropout", "p": 0.5},
    {"type": "Linear", "out_features": 10},
]


def test_three_steps_from_a_spec_equal_three_steps_of_a_hand_written_script() -> None:
    raw = {
        "name": "m",
        "dataset": "d",
        "model": {"type": "Sequential", "layers": LAYERS},
        "optimizer": {"type": "SGD", "lr": 0.05, "momentum": 0.9, "nesterov": True},
        "scheduler": {"type": "StepLR", "step_size": 2, "gamma": 0.5, "interval": "step"},
    }
    spec = check(raw, Source("d@1", images(channels=3, sizes=[(16, 16, 100)]))).spec
    x_BCHW = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    y_B = torch.arange(12) % 10

    torch.manual_seed(1729)
    ours = build_net(spec["model"])
    optimizer = build_optimizer(spec["optimizer"], ours)
    scheduler = build_scheduler(spec["scheduler"], optimizer, Clock(epochs=1, steps_per_epoch=3))
    loss = build_loss(spec["loss"])
    assert scheduler is not None
    torch.manual_seed(5)
    our_losses = []
    for _ in range(3):
        optimizer.zero_grad()
        value = loss(ours(x_BCHW), y_B)
        value.backward()
        optimizer.step()
        scheduler.step()
        our_losses.append(value.item())

    torch.manual_seed(1729)
    plain = convolutional()
    sgd = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    step_lr = torch.optim.lr_scheduler.StepLR(sgd, step_size=2, gamma=0.5)
    torch.manual_seed(5)
    plain_losses = []
    for _ in range(3):
        sgd.zero_grad()
        value = nn.functional.cross_entropy(plain(x_BCHW), y_B)
        value.backward()
        sgd.step()
        step_lr.step()
        plain_losses.append(value.item())

    assert our_losses == plain_losses
    assert list(ours.state_dict()) == list(plain.state_dict())
    for name, tensor in plain.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name
    assert optimizer.param_groups[0]["lr"] == sgd.param_groups[0]["lr"] == 0.025


def test_a_top_level_sequential_is_a_bare_one_with_the_keys_of_a_script() -> None:
    net = build_net(
        {"type": "Sequential", "layers": [{"type": "Linear", "in_features": 2, "out_features": 1}]}
    )
    assert type(net) is nn.Sequential
    assert list(net.state_dict()) == ["0.weight", "0.bias"]


@pytest.mark.parametrize(
    ("component", "expected"),
    [
        ({"type": "Adam", "lr": 0.01, "betas": [0.8, 0.9]}, torch.optim.Adam),
        ({"type": "AdamW", "weight_decay": 0.1}, torch.optim.AdamW),
    ],
)
def test_an_optimizer_is_torch_s_own_with_the_values_of_the_spec(
    component: dict[str, object], expected: type[torch.optim.Optimizer]
) -> None:
    optimizer = build_optimizer(component, nn.Linear(2, 1))
    assert type(optimizer) is expected
    group = optimizer.param_groups[0]
    for name, value in component.items():
        if name != "type":
            assert group[name] == (tuple(value) if isinstance(value, list) else value)


def test_no_scheduler_is_none() -> None:
    assert build_scheduler(None, torch.optim.SGD(nn.Linear(1, 1).parameters()), Clock(1, 1)) is None
