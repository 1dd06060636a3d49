"""What ranks find out before they train together."""

import os
from pathlib import Path

import msgspec
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor, nn

from modelyard.specs import JobSpec
from tests.attempts import first_order
from workers.crew import leaves_some_out, loopback, narrow_gpus
from workers.resolving import NoDevice


class Half(nn.Module):
    """One of its two layers has no part in what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.used(x)
        return outputs


class Asking(nn.Module):
    """Looks at a number, which `meta` has none of."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.inner(x)
        return outputs if outputs.sum().item() > 0 else -outputs


ROWS = torch.randn(4, 3)


def test_a_parameter_that_has_no_part_in_the_outputs_is_found() -> None:
    net = Half()
    assert leaves_some_out(net, (ROWS,))
    net.unused.requires_grad_(False)
    assert not leaves_some_out(net, (ROWS,))


def test_a_net_that_cannot_be_looked_at_may_leave_some_out() -> None:
    assert leaves_some_out(Asking(), (ROWS,))


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2)),
        nn.GRU(3, 5, batch_first=True),
        nn.TransformerEncoderLayer(3, 1, 8, batch_first=True),
    ],
    ids=["norm and dropout", "recurrent", "attention"],
)
def test_a_look_at_the_net_changes_nothing(net: nn.Module) -> None:
    rows = ROWS if isinstance(net, nn.Sequential) else ROWS.unsqueeze(1)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    generator = torch.get_rng_state()
    assert not leaves_some_out(net, (rows,))
    assert torch.equal(torch.get_rng_state(), generator)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_loopback_device_is_one_of_the_machine() -> None:
    assert Path("/sys/class/net", loopback(), "operstate").exists()


def spec_on(device: str) -> JobSpec:
    raw = {"name": "a", "dataset": "d", "model": {}, "trainer": {"device": device, "devices": 2}}
    return msgspec.convert(raw, JobSpec)


@pytest.mark.parametrize(("given", "seen"), [(None, "1"), ("4,7,9", "7"), ("GPU-a,GPU-b,GPU-c", "GPU-b")])
def test_a_rank_sees_its_own_gpu_of_those_that_were_given(
    given: str | None, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given or "")  # so that it is put back
    if given is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    order = replace(first_order({}, Path()), rank=1, world=2, slots=(0, 1))
    narrow_gpus(spec_on("cpu"), order)
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == given
    narrow_gpus(spec_on("cuda"), order)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen


@pytest.mark.parametrize(("slot", "seen"), [(0, "0"), (2, "2"), (4, "1")])
def test_a_job_of_one_device_sees_that_of_its_slot(
    slot: int, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    narrow_gpus(spec_on("cuda"), replace(first_order({}, Path()), slots=(slot,)))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen


@pytest.mark.parametrize("slots", [(0, 2), (1, 3), (3, 1), (0, 2, 4), (5, 2, 0)])
def test_no_two_ranks_of_a_job_see_the_same_gpu(
    slots: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more slots than GPUs, as many GPUs as ranks."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(slots))
    seen = set()
    for rank in range(len(slots)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        order = replace(first_order({}, Path()), rank=rank, world=len(slots), slots=slots)
        narrow_gpus(spec_on("cuda"), order)
        seen.add(os.environ["CUDA_VISIBLE_DEVICES"])
    assert seen == {str(gpu) for gpu in range(len(slots))}


def test_more_devices_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(NoDevice, match="devices is 2, and this worker sees 1 GPU"):
        narrow_gpus(spec_on("cuda"), replace(first_order({}, Path()), world=2))
