"""Rings in Celery's event loop when a task has ended, so that a free slot hears the next wake-up at once.

With prefetching off, the loop stops listening to the queue while every slot is taken, and asks again
whether one is free only at its next turn. A task that ends in a thread does not turn it: without a
ring the wake-up after it waits for up to a second.
"""

import contextlib
import socket
from typing import Any

from celery import bootsteps, signals

#: After the ring: the slot is given back some microseconds after the task's last word, by its thread.
TURNS_S = (0.001, 0.004, 0.016, 0.064)


class Bell(bootsteps.StartStopStep):  # type: ignore[misc] # celery ships no types
    """Added to each consumer; a consumer is made anew when the broker was away."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        self._hub = consumer.hub
        self._heard, self._rung = socket.socketpair()
        self._heard.setblocking(False)
        self._rung.setblocking(False)
        self._hub.add_reader(self._heard, self._turn)
        signals.task_postrun.connect(self._ring)

    def stop(self, consumer: Any) -> None:
        signals.task_postrun.disconnect(self._ring)
        self._hub.remove_reader(self._heard)
        self._heard.close()
        self._rung.close()

    def _ring(self, **_: Any) -> None:
        """In the task's thread."""
        with contextlib.suppress(OSError):  # full: it has rung often enough; or closed: the consumer is gone
            self._rung.send(b"!")

    def _turn(self) -> None:
        """Each timer turns the loop once."""
        with contextlib.suppress(BlockingIOError):
            self._heard.recv(4096)
        for delay_s in TURNS_S:
            self._hub.call_later(delay_s, _nothing)


def _nothing() -> None:
    pass
