"""The processes that train one net together, one a device: torch's DistributedDataParallel, and what they
agree on.

Every rank takes the same steps, so whatever one of them alone knows (a clock, a pipe, the validation split)
is told to the others before anyone acts on it: a rank that went another way would leave the rest waiting.
"""

import copy
import gc
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from core.nets.refusals import REFUSALS
from modelyard.specs import JobSpec
from workers.messages import Order, Stop
from workers.resolving import NoDevice, wants_gpu

T = TypeVar("T")

#: Ranks wait for one that loads or evaluates; the supervisor ends them all where one dies or hangs.
PATIENCE = timedelta(days=30)

_STOPS = (None, Stop(save=False), Stop(save=True))


def unasked() -> None:
    return None


class Crew:
    """Of one process, which agrees with itself. `asked` is what its supervisor asks for, if it does."""

    rank, world = 0, 1

    def __init__(self, asked: Callable[[], Stop | None] = unasked) -> None:
        self._asked = asked

    @property
    def stop(self) -> Stop | None:
        """What every rank has heard of."""
        return self._asked()

    def agree(self, seconds: float) -> float:
        """The first rank's clock, and its `stop`."""
        return seconds

    def begin_epoch(self, net: nn.Module) -> None:
        """Which parameters have gradients may have changed."""

    def forward(self, net: nn.Module, inputs: tuple[Tensor, ...], *, reduces: bool) -> Any:
        """The net's outputs. The backward pass of one that `reduces` leaves on every rank the mean of what
        all have gathered in their gradients."""
        return net(*inputs)

    def summed(self, values: Tensor) -> Tensor:
        """Over the ranks, on the CPU: a host-device sync."""
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first rank makes, or raises, the others wait for."""
        return make()

    def gathered(self, value: T) -> list[T]:
        """Of each rank, in their order; empty but for the first."""
        return [value]


def join(order: Order, device: torch.device, asked: Callable[[], Stop | None]) -> Crew:
    """Waits until every rank is there."""
    return Crew(asked) if order.world == 1 else Ranks(order, device, asked)


def narrow_gpus(spec: JobSpec, order: Order) -> None:
    """Leaves this rank, before it touches one, only the GPU of its slot: `cuda` means that in every thread.
    Several jobs share a GPU where there are fewer than slots. Raises NoDevice where a job's ranks would."""
    count = torch.cuda.device_count()
    if not count or not wants_gpu(spec, order):
        return
    if count < order.world:
        raise NoDevice(f"trainer.devices is {order.world}, and this worker sees {count} GPUs")
    keep_gpu(gpus_of(order.slots, count)[order.rank], count)


def keep_gpu(place: int, count: int) -> None:
    """Of `count` GPUs that this process sees and has not touched, leaves it one."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = visible if visible[0] else [str(number) for number in range(count)]
    os.environ["CUDA_VISIBLE_DEVICES"] = names[place]


def gpus_of(slots: Sequence[int], count: int) -> list[int]:
    """For each of at most `count` slots another GPU: that of its number, or the next one that is left."""
    chosen: list[int] = []
    for slot in slots:
        wished = ((slot + further) % count for further in range(count))
        chosen.append(next(gpu for gpu in wished if gpu not in chosen))
    return chosen


class Ranks(Crew):
    """Of several processes of one machine: they talk over the loopback device, and gradients go over NCCL
    where there are GPUs.

    Batch norm takes its statistics from a rank's own rows; the running ones are the first rank's.
    """

    def __init__(self, order: Order, device: torch.device, asked: Callable[[], Stop | None]) -> None:
        super().__init__(asked)
        self.rank, self.world = order.rank, order.world
        self._stop: Stop | None = None
        self._is_exact = bool(order.spec["trainer"]["deterministic"])
        self._parallel: DistributedDataParallel | None = None
        self._trained: list[str] = []
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback()
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=dist.FileStore(order.rendezvous, order.world),  # type: ignore[attr-defined] # it is public
            rank=order.rank,
            world_size=order.world,
            timeout=PATIENCE,
        )
        # What is agreed on goes from processor to processor: no GPU is waited for.
        words = dist.new_group(backend="gloo", timeout=PATIENCE)
        assert isinstance(words, dist.ProcessGroup)  # torch gives a number to who is no member
        self._words = words

    @property
    def stop(self) -> Stop | None:
        return self._stop

    def agree(self, seconds: float) -> float:
        asked = self._asked()
        told = torch.tensor([seconds, 0 if asked is None else 1 + asked.save], dtype=torch.float64)
        dist.broadcast(told, src=0, group=self._words)
        seconds, place = told.tolist()
        self._stop = _STOPS[int(place)]
        return seconds

    def begin_epoch(self, net: nn.Module) -> None:
        trained = [name for name, each in net.named_parameters() if each.requires_grad]
        if trained != self._trained:
            self._trained, self._parallel = trained, None
            gc.collect()  # what watched the gradients before goes, and its hooks with it

    def forward(self, net: nn.Module, inputs: tuple[Tensor, ...], *, reduces: bool) -> Any:
        parallel = self._parallel = self._parallel or self._wrap(net, inputs)
        if reduces:
            return parallel(*inputs)
        with parallel.no_sync():  # the forward pass decides whether its backward pass reduces
            return parallel(*inputs)

    def summed(self, values: Tensor) -> Tensor:
        values = values.cpu().clone()
        dist.all_reduce(values, group=self._words)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        told: list[Any] = [None, None]
        if self.rank == 0:
            try:
                told[0] = make()
            except Exception as error:  # the others wait for it too
                told[1] = error
        dist.broadcast_object_list(told, src=0, group=self._words)
        made, raised = told
        if raised is not None:
            raise raised
        return made  # type: ignore[no-any-return]  # what `make` gives

    def gathered(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.world if self.rank == 0 else []
        dist.gather_object(value, values if self.rank == 0 else None, group=self._words)
        return values

    def _wrap(self, net: nn.Module, inputs: tuple[Tensor, ...]) -> DistributedDataParallel:
        """The first rank's weights and buffers, on all.

        Torch sorts the gradients into other buckets after the first step, but for a net in which some may go
        unused. A sum over more than two ranks depends on its place in a bucket: where a resumed run must
        equal an unbroken one, the buckets stay as they are.
        """
        keeps_buckets = self._is_exact and self.world > 2
        return DistributedDataParallel(
            net,
            find_unused_parameters=keeps_buckets or leaves_some_out(net, inputs),
            gradient_as_bucket_view=True,
        )


def loopback() -> str:
    """The name of the network device that leads nowhere else."""
    names = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    return names[0] if names else "lo"


def leaves_some_out(net: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether a parameter that trains has no part in the outputs: found on `meta`, where nothing is computed
    or drawn. True where that doesn't say."""
    shadow = copy.deepcopy(net).to("meta")
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            outputs = shadow(*(part.to("meta") for part in inputs))
    except REFUSALS:
        return True
    reached = set(_leaves(outputs if isinstance(outputs, tuple) else (outputs,)))
    return any(each.requires_grad and id(each) not in reached for each in shadow.parameters())


def _leaves(outputs: tuple[Tensor, ...]) -> Iterator[int]:
    """Of the graph behind the outputs: the ids of its tensors."""
    waiting = [part.grad_fn for part in outputs]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield id(node.variable)
        waiting += [before for before, _ in node.next_functions]


def is_left_alone(error: Exception) -> bool:
    """Whether another rank is gone: gloo says so in words."""
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)
