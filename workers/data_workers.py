"""Processes that gather and transform rows for a training: `trainer.num_workers` of them.

They are forked while the child of an attempt has one thread and no device, so that they start in
milliseconds, and hold nothing but torch's own pages. Each ends when its socket does, however the child ended.
"""

import os
import pickle
import socket
import struct
import traceback
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from core.nets import plugins
from core.nets.transforms import Pipeline
from workers.feed import Feed, Made, Wanted
from workers.inputs import Reading

_LENGTH = struct.Struct("<Q")
_MAX_FD = 1 << 16


@dataclass(frozen=True)
class Opening:
    """What they gather from, and how they transform it; `plugins` are loaded before."""

    reading: Reading
    plugins: str


class DataWorkerEnded(Exception):
    """One of the processes is gone: killed, most likely, for want of memory."""


class DataWorkers:
    """Each makes one batch at a time, in turns, so that batches come in the order of what is wanted."""

    def __init__(self, count: int, plugins: str = "") -> None:
        """Forks: call it before the first thread is started, and before a GPU is touched."""
        self._plugins = plugins
        self._workers: list[_Worker] = []
        for _ in range(count):
            self._workers.append(_Worker.fork())
        self._answering: deque[_Worker] = deque()

    def __len__(self) -> int:
        return len(self._workers)

    def open(self, reading: Reading) -> None:
        """They open while the caller goes on; what went wrong is raised by the first `make`."""
        self._settle()
        for worker in self._workers:
            worker.link.send(Opening(reading, self._plugins))
            self._answering.append(worker)

    def make(self, wanted: Iterable[Wanted]) -> Generator[Made]:
        """One for each. Closed before its end, it leaves what is being made to the next call. Raises what a
        worker raised, with its traceback as a note, and DataWorkerEnded."""
        self._settle()
        orders = iter(wanted)
        for worker, each in zip(self._workers, islice(orders, len(self._workers)), strict=False):
            self._order(worker, each)
        while self._answering:
            worker = self._answering.popleft()
            arrays = worker.receive()
            for each in islice(orders, 1):
                self._order(worker, each)
            yield tuple(map(torch.from_numpy, arrays))

    def close(self) -> None:
        """They end, after what they are making."""
        for worker in self._workers:
            worker.link.socket.close()
        for worker in self._workers:
            os.waitpid(worker.pid, 0)
        self._workers.clear()
        self._answering.clear()

    def _order(self, worker: "_Worker", wanted: Wanted) -> None:
        # As numpy's: a pickled slice of a tensor takes all of its storage along.
        worker.link.send((wanted.index_B.numpy(), wanted.draws_B.numpy(), wanted.seed, wanted.epoch))
        self._answering.append(worker)

    def _settle(self) -> None:
        """Takes the answers that nobody waits for any more."""
        while self._answering:
            self._answering.popleft().receive()


@dataclass(frozen=True)
class _Link:
    """Python objects over a socket; arrays go as they lie in memory."""

    socket: socket.socket

    def send(self, message: object) -> None:
        buffers: list[pickle.PickleBuffer] = []
        data = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
        parts = [memoryview(data), *(buffer.raw() for buffer in buffers)]
        self.socket.sendall(b"".join(map(_LENGTH.pack, [len(parts), *(part.nbytes for part in parts)])))
        for part in parts:
            self.socket.sendall(part)

    def receive(self) -> Any:
        """Raises EOFError or OSError where the other end is gone."""
        (count,) = _LENGTH.unpack(self._read(_LENGTH.size))
        sizes = [size for (size,) in _LENGTH.iter_unpack(self._read(_LENGTH.size * count))]
        data, *buffers = (self._read(size) for size in sizes)
        return pickle.loads(data, buffers=buffers)  # noqa: S301  # both ends are this program

    def _read(self, size: int) -> memoryview:
        view = np.empty(size, np.uint8).data  # not a bytearray, which would be filled with zeros
        came = 0
        while came < size:
            more = self.socket.recv_into(view[came:])
            if more == 0:
                raise EOFError
            came += more
        return view


@dataclass(frozen=True)
class _Worker:
    pid: int
    link: _Link

    @classmethod
    def fork(cls) -> "_Worker":
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            _live(theirs)
        theirs.close()
        return cls(pid, _Link(ours))

    def receive(self) -> Any:
        try:
            answer = self.link.receive()
        except (EOFError, OSError) as error:
            raise DataWorkerEnded(
                f"the data worker {self.pid} ended before its batch did, as it does where memory is short: "
                "lower trainer.num_workers or trainer.batch_size"
            ) from error
        if isinstance(answer, Exception):
            raise answer
        return answer


def _live(theirs: socket.socket) -> None:
    """Never returns. No descriptor but its own stays open: the others' ends are for the child alone."""
    try:
        own = theirs.fileno()
        os.closerange(3, own)
        os.closerange(own + 1, _MAX_FD)
        torch.set_num_threads(1)
        _serve(_Link(theirs))
    except (EOFError, OSError):  # the training is over, or its process is gone
        os._exit(0)
    except BaseException:  # nothing of the parent's may run in its copy
        traceback.print_exc()
    finally:
        os._exit(1)


def _serve(link: _Link) -> None:
    feed: Feed | None = None
    while True:
        order = link.receive()
        answer: object = None
        try:
            if isinstance(order, Opening):
                feed = _opened(order)
            elif feed is not None:
                index_B, draws_B, *rest = order
                made = feed.make(Wanted(torch.from_numpy(index_B), torch.from_numpy(draws_B), *rest))
                answer = [x.contiguous().numpy() for x in made]
        except Exception as error:  # it belongs to the training, which raises it
            answer = _portable(error)
        link.send(answer)


def _opened(opening: Opening) -> Feed:
    plugins.load(opening.plugins)
    pipeline = Pipeline.from_spec(opening.reading.transforms)
    return Feed((opening.reading.open(),), pipeline, torch.device("cpu"))


def _portable(error: Exception) -> Exception:
    """With its traceback as a note; an error that can't be pickled comes as a RuntimeError."""
    error.add_note("in a data worker:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # its own words, just written
    except Exception:  # whatever its class does in __reduce__ or __init__
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
