"""What inference processes stand on: memory that two see, messages that survive the way, strikes."""

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.data.instances import BadInstance
from core.errors import Gone, ModelyardError, Unavailable
from service.inference.processes import messages, strikes
from service.inference.processes.messages import NetBroke
from service.inference.processes.shared import KEPT_BYTES, Shared
from service.inference.processes.strikes import Strikes

# Shared memory


def both() -> tuple[Shared, Shared]:
    ours = Shared.create()
    return ours, Shared(os.dup(ours.descriptor))


@given(
    count=st.integers(1, 5),
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=4),
    dtypes=st.lists(
        st.sampled_from(["float32", "int64", "uint8", "bfloat16", "bool"]), min_size=4, max_size=4
    ),
)
def test_what_one_side_stacks_the_other_sees_to_the_bit(
    count: int, shapes: list[list[int]], dtypes: list[str]
) -> None:
    ours, theirs = both()
    rows = [
        tuple(
            torch.randint(0, 100, shape).to(getattr(torch, dtype))
            for shape, dtype in zip(shapes, dtypes, strict=False)
        )
        for _ in range(count)
    ]
    seen = theirs.views(ours.stack(rows))
    for part, expected in zip(seen, zip(*rows, strict=True), strict=True):
        assert part.dtype == expected[0].dtype
        assert torch.equal(part, torch.stack(expected))
    for side in (ours, theirs):
        side.close()


def test_it_grows_with_either_side_and_gives_a_large_batch_back() -> None:
    ours, theirs = both()
    large = torch.arange(KEPT_BYTES // 8, dtype=torch.int64)
    inputs = ours.stack([(large,), (large,)])
    theirs.reach(ours.size_bytes)
    assert torch.equal(theirs.views(inputs)[0][1], large)
    larger = torch.cat([large, large, large])
    layout = theirs.put(larger)
    ours.reach(theirs.size_bytes)
    used = os.fstat(ours.descriptor).st_blocks
    assert torch.equal(ours.take(layout), larger)
    assert os.fstat(ours.descriptor).st_blocks < used / 100
    again = ours.stack([(large,)])
    assert torch.equal(theirs.views(again)[0][0], large)
    for side in (ours, theirs):
        side.close()


def test_rows_of_several_shapes_are_refused_as_torch_refuses_them() -> None:
    ours = Shared.create()
    with pytest.raises(RuntimeError, match="equal size"):
        ours.stack([(torch.zeros(3),), (torch.zeros(4),)])
    ours.close()


# Messages


@pytest.mark.parametrize(
    "error",
    [
        Gone("gone", code="collected"),
        Unavailable("later", code="plugin_missing", retry_after_s=7),
        ModelyardError("damaged", code="version_damaged"),
    ],
)
def test_an_error_of_ours_comes_out_as_it_went_in(error: ModelyardError) -> None:
    read = _sent(messages.failure_of(3, error))
    assert (type(read), read.args) == (type(error), error.args)
    assert isinstance(read, ModelyardError)
    assert (read.code, read.retry_after_s) == (error.code, error.retry_after_s)


def test_a_bad_instance_is_the_requests_fault_still() -> None:
    read = _sent(messages.failure_of(3, BadInstance("row 1")))
    assert isinstance(read, ModelyardError)
    assert read.code == BadInstance("row 1").code


def test_whatever_else_is_raised_comes_with_its_traceback() -> None:
    try:
        raise ZeroDivisionError("by nought")
    except ZeroDivisionError as error:
        read = _sent(messages.failure_of(3, error))
    assert isinstance(read, NetBroke)
    assert "test_whatever_else" in str(read)
    assert "ZeroDivisionError: by nought" in str(read)


def _sent(failure: messages.Refused | messages.Broke) -> Exception:
    framed = messages.frame(failure)
    (length,) = messages.LENGTH.unpack(framed[: messages.LENGTH.size])
    reply = messages.decode_reply(framed[messages.LENGTH.size :][:length])
    assert isinstance(reply, messages.Refused | messages.Broke)
    return messages.error_of(reply)


# Strikes


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_third_death_within_the_window_holds_a_version_back_for_as_long() -> None:
    clock = Clock()
    struck = Strikes(clock)
    assert [struck.add("v", "m@1", "why") for _ in range(2)] == [False, False]
    struck.require_free("v")
    assert struck.add("v", "m@1", "why")
    with pytest.raises(Unavailable, match="m@1 why") as raised:
        struck.require_free("v")
    assert raised.value.retry_after_s == strikes.WINDOW_S
    struck.require_free("other")
    clock.now = strikes.WINDOW_S
    struck.require_free("v")
    assert not struck.add("v", "m@1", "why")  # counted anew


def test_deaths_far_apart_hold_nothing_back() -> None:
    clock = Clock()
    struck = Strikes(clock)
    for _ in range(10):
        assert not struck.add("v", "m@1", "why")
        assert struck.has("v")
        clock.now += strikes.WINDOW_S / 2 + 1
    clock.now += strikes.WINDOW_S
    assert not struck.has("v")


def test_one_that_hung_is_held_back_at_once() -> None:
    struck = Strikes(Clock())
    assert struck.add("v", "m@1", "hung", is_last=True)
    with pytest.raises(Unavailable, match="hung"):
        struck.require_free("v")


def test_of_very_many_versions_the_first_are_forgotten() -> None:
    struck = Strikes(Clock())
    for number in range(strikes.MAX_VERSIONS + 1):
        struck.add(str(number), "m@1", "hung", is_last=True)
    struck.require_free("0")
    with pytest.raises(Unavailable):
        struck.require_free("1")
