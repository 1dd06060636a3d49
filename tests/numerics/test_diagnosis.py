"""Where a loss began to be no number, found by one rank of several while the others wait elsewhere."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.attempts import arrays, attempt_of, c, seq
from workers import diagnosis
from workers.crew import Crew
from workers.cursor import NonFiniteLoss

NET = seq(c("Linear", out_features=4), c("BatchNorm1d"), c("Linear", out_features=3))


class Alone(Crew):
    """Whatever needs another rank would wait for ever."""

    rank, world = 1, 2

    def forward(self, net: nn.Module, inputs: tuple[Tensor, ...], *, reduces: bool) -> Any:
        raise AssertionError("no other rank takes part in this forward pass")


def test_a_rank_that_looks_for_a_bad_row_asks_no_other_rank(tmp_path: Path) -> None:
    manifest, rows = arrays([7], classes=3)()
    data, training, _ = attempt_of({"model": NET}, manifest, rows, tmp_path).begin()
    batch = next(iter(training.train.of_epoch(0)))
    inputs = batch.inputs[0].clone()
    inputs[2, 5] = torch.inf
    spoilt = dataclasses.replace(batch, inputs=(inputs,))
    error = NonFiniteLoss("the training loss became nan", spoilt)
    found = diagnosis.explained(error, dataclasses.replace(training, crew=Alone()), data.manifest)
    assert f"row {batch.index[2].item()} of train" in str(found)
