"""When a checkpoint is due: of epochs, those that are the best so far."""

import math

import pytest

from modelyard.specs import CheckpointPolicy
from workers.cursor import Cursor
from workers.keeping import Keeping

POLICY = CheckpointPolicy(every_steps=1000, monitor="val_loss", mode="min")


def due(keeping: Keeping, values: list[float]) -> list[bool]:
    """Of epochs that were measured so, one after another."""
    return [keeping.is_due_at_epoch(Cursor(epoch=1, step=7), {"val_loss": value}) for value in values]


def test_an_epoch_is_due_where_it_is_the_best_so_far() -> None:
    assert due(Keeping(POLICY, Cursor()), [0.5, 0.6, 0.5, 0.4]) == [True, False, False, True]


@pytest.mark.parametrize("none", [math.nan, -math.inf])
def test_what_is_no_number_is_never_the_best_and_hides_no_later_one(none: float) -> None:
    assert due(Keeping(POLICY, Cursor()), [none, 0.5, none, 0.6, 0.4]) == [False, True, False, False, True]


def test_a_later_attempt_knows_what_there_is_to_beat() -> None:
    earlier, later = Keeping(POLICY, Cursor()), Keeping(POLICY, Cursor())
    due(earlier, [0.5])
    later.restore(earlier.state)
    assert due(later, [0.6, 0.4]) == [False, True]


def test_the_state_of_a_checkpoint_without_one_is_that_of_a_beginning() -> None:
    keeping = Keeping(POLICY, Cursor())
    keeping.restore({})
    assert due(keeping, [0.6]) == [True]
