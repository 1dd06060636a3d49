"""Nets, losses, optimizers and schedules as a person writes them in PyTorch, for tests that hold specs
against them. With one seed a net has the first weights of the spec that it stands beside."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torchvision import models

#: Steps of an epoch.
STEPS = 3


@dataclass
class Script:
    """What a hand-written loop has. `schedule` is stepped after each step, where it is given."""

    net: nn.Module
    loss: Callable[..., Tensor]
    optimizer: torch.optim.Optimizer
    schedule: lr_scheduler.LRScheduler | None = None


def mlp() -> Script:
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    return Script(net, nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), lr=1e-2))


def cnn() -> Script:
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(6 * 4 * 4, 4),
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    return Script(net, nn.CrossEntropyLoss(), optimizer, lr_scheduler.StepLR(optimizer, 2, gamma=0.5))


def resnet() -> Script:
    net = models.resnet18(num_classes=4)
    for name, parameter in net.named_parameters():
        parameter.requires_grad = name.startswith(("layer4.", "fc."))

    def train(mode: bool = True) -> nn.Module:
        nn.Module.train(net, mode)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()
        return net

    net.train = train  # type: ignore[method-assign]
    optimizer = torch.optim.AdamW(
        [{"params": net.layer4.parameters()}, {"params": net.fc.parameters(), "lr": 1e-2}], lr=1e-4
    )
    return Script(net, nn.CrossEntropyLoss(), optimizer)


class LastStep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, num_layers=2, batch_first=True, dropout=0.1)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.lstm(x)
        return steps[:, -1]


def lstm() -> Script:
    net = nn.Sequential(nn.Embedding(50, 8, padding_idx=0), LastStep(), nn.Linear(16, 2))
    return Script(net, nn.CrossEntropyLoss(), torch.optim.Adam(net.parameters(), lr=1e-2))


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


class Positions(nn.Module):
    """As in the tutorial: sin and cos of t / 10000^(2i / d)."""

    def forward(self, x: Tensor) -> Tensor:
        d = x.shape[-1]
        position = torch.arange(x.shape[1]).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, d, 2) * (-2 * np.log(10000.0) / d / 2))
        pe = torch.zeros(x.shape[1], d)
        pe[:, 0::2] = torch.sin(position * div_term)
        pe[:, 1::2] = torch.cos(position * div_term)
        return F.dropout(x + pe, 0.1, self.training)


def transformer() -> Script:
    # torch makes the copies of an encoder from one layer, drawn before it.
    layer = None
    embedding = nn.Embedding(50, 8)
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2)
    net = nn.Sequential(embedding, Positions(), encoder, Mean(), nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    schedule = lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=STEPS * 4)
    return Script(net, nn.CrossEntropyLoss(), optimizer, schedule)


def huber() -> Script:
    net = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Linear(16, 1))
    return Script(net, nn.HuberLoss(delta=0.5), torch.optim.RMSprop(net.parameters(), lr=1e-2))


def linear() -> Script:
    net = nn.Linear(3, 1)
    return Script(net, nn.MSELoss(), torch.optim.SGD(net.parameters(), lr=0.1))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(2, 4)
        self.right = nn.Linear(1, 4)
        self.joined = nn.Bilinear(4, 4, 3)
        self.out = nn.Linear(7, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        left, right = torch.tanh(self.left(a)), torch.tanh(self.right(b))
        out: Tensor = self.out(torch.cat([self.joined(left, right), left + right], dim=1))
        return out


def graph() -> Script:
    net = TwoInputs()
    return Script(net, nn.SmoothL1Loss(), torch.optim.Adagrad(net.parameters(), lr=0.05))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.norm(self.conv(x))) + x


class Pools(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.adaptive_avg_pool2d(x, 2), F.adaptive_max_pool2d(x, 2)], dim=1)


def residual() -> Script:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), Block(), Pools(), nn.Flatten(), nn.Linear(32, 4))
    optimizer = torch.optim.NAdam(net.parameters(), lr=1e-2)
    return Script(
        net, nn.CrossEntropyLoss(label_smoothing=0.1), optimizer, lr_scheduler.CosineAnnealingLR(optimizer, 6)
    )


def multilabel() -> Script:
    net = nn.Sequential(nn.Linear(5, 16), nn.ELU(), nn.Dropout(0.2), nn.Linear(16, 3))
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 0.5]))
    return Script(net, loss, torch.optim.Adamax(net.parameters(), lr=1e-2))


def he_initialized() -> Script:
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(6 * 36, 4)
    )
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0, 4.0]))
    optimizer = torch.optim.RAdam(net.parameters(), lr=1e-2)
    warm_up = lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=2)
    after = lr_scheduler.ExponentialLR(optimizer, gamma=0.9)
    return Script(
        net, loss, optimizer, lr_scheduler.SequentialLR(optimizer, [warm_up, after], milestones=[2])
    )


class MeanGru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 6, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.gru(x)
        return steps.mean(dim=1)


def gru() -> Script:
    net = nn.Sequential(MeanGru(), nn.LayerNorm(12), nn.Linear(12, 1))
    return Script(net, nn.L1Loss(), torch.optim.Adadelta(net.parameters(), lr=1.0))
