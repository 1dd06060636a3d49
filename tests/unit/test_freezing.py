"""What is frozen, and from when on it trains."""

import pytest
import torch
from torch import nn

from core.nets.freezing import (
    Freezing,
    begin_epoch,
    check_freezing,
    frozen_names,
    is_frozen,
    trained_names,
)
from modelyard.specs import ProblemError
from modelyard.specs.jobspec import Unfreeze

NAMES = ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"]
BASE = Freezing([r"0\..*", r"1\..*"], [Unfreeze(r"1\..*", 2), Unfreeze(r"0\.bias", 3)])


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(16, 3))


def test_what_is_frozen_is_a_function_of_the_epoch() -> None:
    assert frozen_names(BASE, NAMES, 0) == frozen_names(BASE, NAMES, 1) == set(NAMES[:4])
    assert frozen_names(BASE, NAMES, 2) == {"0.weight", "0.bias"}
    assert frozen_names(BASE, NAMES, 3) == {"0.weight"}
    assert is_frozen(BASE, "0.weight")
    assert not is_frozen(BASE, "3.weight")


def test_what_thaws_too_late_never_trains() -> None:
    assert trained_names(BASE, NAMES, epochs=2) == ["3.weight", "3.bias"]
    assert trained_names(BASE, NAMES, epochs=4) == NAMES[1:]
    assert trained_names(Freezing(), NAMES, epochs=1) == NAMES


def test_a_frozen_batch_norm_stays_in_eval_mode_until_it_thaws() -> None:
    made = net()
    for epoch, is_training in ((0, False), (1, False), (2, True), (0, False)):
        made.eval()
        begin_epoch(made, BASE, epoch)
        assert made[1].training is is_training
        assert made[0].training
        assert made[1].weight.requires_grad is is_training
        before = made[1].running_mean.clone()
        made(torch.randn(4, 1, 6))
        assert torch.equal(made[1].running_mean, before) is not is_training


def test_a_batch_norm_of_which_one_parameter_trains_is_in_train_mode() -> None:
    made = net()
    begin_epoch(made, Freezing([r"1\.weight"]), 0)
    assert made[1].training
    plain = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4, affine=False))
    begin_epoch(plain, Freezing([r"0\..*"]), 0)
    assert plain[1].training


def test_a_parameter_that_no_pattern_freezes_keeps_what_its_layer_says() -> None:
    made = net()
    made[3].bias.requires_grad_(False)
    begin_epoch(made, BASE, 3)
    assert not made[3].bias.requires_grad


@pytest.mark.parametrize(
    ("freezing", "expected"),
    [
        (BASE, []),
        (Freezing(["fc.*"]), [("/freeze/0", "matches_nothing")]),
        (Freezing(["("]), [("/freeze/0", "invalid_pattern")]),
        (Freezing([r"0\..*"], [Unfreeze("fc.*", 1)]), [("/unfreeze/0/match", "matches_nothing")]),
        (Freezing([r"0\..*"], [Unfreeze(r"3\..*", 1)]), [("/unfreeze/0/match", "matches_nothing")]),
        (Freezing([r"0\..*"], [Unfreeze(r"0\..*", 5)]), [("/unfreeze/0/epoch", "invalid_value")]),
        (Freezing([".*"]), [("/freeze", "nothing_to_train")]),
        (Freezing([".*"], [Unfreeze(".*", 1)]), [("/freeze", "nothing_to_train")]),
    ],
)
def test_a_plan_checks_patterns_epochs_and_that_something_trains(
    freezing: Freezing, expected: list[tuple[str, str]]
) -> None:
    errors: list[ProblemError] = []
    check_freezing(freezing, NAMES, 5, errors)
    assert [(error.pointer, error.code) for error in errors] == expected
