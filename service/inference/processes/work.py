"""What an inference process does: it loads versions and computes their forwards, until the service is gone.

It knows no database, no key and no HTTP. Loads run on a thread beside the forwards, one after another, as in
the service itself; so a load and a forward are what may end it, and the service knows of which it waited.
"""

import contextlib
import faulthandler
import os
import select
import signal
import socket
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from core.errors import Unavailable
from core.nets import plugins
from core.predict import Predictor
from service.inference.engine import alone, cores, use_threads
from service.inference.files import VersionFiles, load_files
from service.inference.processes import messages
from service.inference.processes.messages import (
    LENGTH,
    Answered,
    Forget,
    Forward,
    Load,
    Loaded,
    Up,
    Warm,
    Warmed,
)
from service.inference.processes.shared import Shared
from service.inference.served import QUICK_S, full_batch_s, timed, warm

#: The number of what is answered without having been asked.
UNASKED = 0

#: The service kills at the deadline; should it be gone and the forward hold the interpreter, the kernel does.
PATIENCE = 2

EXIT_POISONED = 4

#: Comes first, with the shared memory.
HELLO = b"m"


@dataclass(frozen=True)
class Place:
    """Which process of how many, and what it is given. `plugins` is the setting of that name."""

    number: int
    of: int
    plugins: str
    deadline_s: float


@dataclass(frozen=True)
class Held:
    predictor: Predictor
    is_quick: bool


def main(link: socket.socket, place: Place) -> None:
    # The service stops first and answers meanwhile; a signal to the whole group must not come before that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # what the service asks of one that hangs
    threading.Thread(target=_end_with, args=(link,), daemon=True).start()
    _, descriptors, _, _ = socket.recv_fds(link, len(HELLO), 1)
    if descriptors:  # else the service has gone before it sent them
        plugins.load(place.plugins)
        with contextlib.suppress(OSError):  # it is gone
            Computing(link, Shared(descriptors[0]), place).run()
    os._exit(0)  # nothing to tidy, and an interpreter with torch takes most of a second to leave


def _end_with(link: socket.socket) -> None:
    """Whatever the other threads do: the end of the service is the end of this process."""
    waiting = select.poll()
    waiting.register(link, 0)  # a hang-up alone
    waiting.poll()
    os._exit(0)


class Computing:
    def __init__(self, link: socket.socket, memory: Shared, place: Place) -> None:
        self._link, self._memory, self._place = link, memory, place
        self._models: dict[int, Held] = {}
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load", initializer=alone)
        self._sending = threading.Lock()
        self._threads = 0
        self._device = _only_device(place.number)

    def run(self) -> None:
        self._send(Up(UNASKED, self._device))
        orders = self._link.makefile("rb")
        while length := orders.read(LENGTH.size):
            match messages.decode_order(orders.read(*LENGTH.unpack(length))):
                case Forward() as order:
                    self._send(self._computed(order))
                case Load() as order:
                    self._loader.submit(self._load, order)
                case Warm() as order:
                    self._send(self._warmed(order))
                case Forget(model):
                    # Unmapping a gigabyte takes tens of milliseconds: the loading thread does it.
                    self._loader.submit([self._models.pop(model, None)].clear)

    def _computed(self, order: Forward) -> messages.Reply:
        signal.setitimer(signal.ITIMER_REAL, PATIENCE * self._place.deadline_s)
        try:
            held = self._models[order.model]
            self._use_threads(held)
            self._memory.reach(order.size_bytes)
            rows = list(zip(*self._memory.views(order.inputs), strict=True))
            # Stacks the rows anew: a net that writes into its input writes into a batch of its own.
            computed = timed(held.predictor, rows)
            outputs = self._memory.put(computed.answers)
            size_bytes = self._memory.size_bytes
            return Answered(order.ask, outputs, computed.seconds, computed.transform_s, size_bytes)
        except Exception as error:
            return self._failure(order.ask, error)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _warmed(self, order: Warm) -> messages.Reply:
        try:
            held = self._models[order.model]
            self._use_threads(held)
            warm(held.predictor)
            return Warmed(order.ask)
        except Exception as error:
            return self._failure(order.ask, error)

    def _load(self, order: Load) -> None:
        try:
            files = VersionFiles(order.name, Path(order.manifest), Path(order.weights))
            predictor = load_files(files, self._device)
            held = Held(predictor, full_batch_s(predictor) < QUICK_S)
            self._models[order.model] = held
            reply: messages.Reply = Loaded(order.ask, predictor.size_bytes, held.is_quick)
        except Exception as error:
            reply = self._failure(order.ask, error)
        self._send(reply)

    def _use_threads(self, held: Held) -> None:
        """As many as the service's own forwards of such a net have, and its share of the cores at most."""
        threads = 1 if held.is_quick else max(1, cores() // self._place.of)
        if threads != self._threads:
            use_threads(threads)
            self._threads = threads

    def _failure(self, ask: int, error: Exception) -> messages.Reply:
        """Ends the process where its device answers nobody any more: an assert of a kernel is for good."""
        if self._device != "cpu":
            if not _is_sound():
                traceback.print_exception(error)
                os._exit(EXIT_POISONED)
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()
                detail = "The device has no room for this forward; send fewer rows, or send it again."
                return messages.failure_of(ask, Unavailable(detail, code="out_of_memory"))
        return messages.failure_of(ask, error)

    def _send(self, reply: messages.Reply) -> None:
        with self._sending:
            self._link.sendall(messages.frame(reply))


def _only_device(number: int) -> str:
    """Leaves this process, before it touches one, only the GPU of its number: `cuda` means that in every
    thread. Several share a GPU where there are fewer."""
    count = torch.cuda.device_count()
    if not count:
        return "cpu"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = visible if visible[0] else [str(place) for place in range(count)]
    os.environ["CUDA_VISIBLE_DEVICES"] = names[number % count]
    torch.backends.cudnn.allow_tf32 = False  # too coarse for golden answers of a CPU
    return "cuda"


def _is_sound() -> bool:
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True
