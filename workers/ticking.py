"""Keeps Celery's event loop turning, so that a free slot hears the next wake-up at once.

With prefetching off, the loop stops listening to the queue while every slot is taken, and asks again
whether one is free only at its next turn. A task that ends in a thread does not turn it: without a
timer the wake-up after it waits for up to a second.
"""

from typing import Any

from celery import bootsteps

#: The longest that a free slot stays deaf. A turn of the loop costs some ten microseconds.
TICK_S = 0.01


class Tick(bootsteps.StartStopStep):  # type: ignore[misc] # celery ships no types
    """Added to each consumer; a consumer is made anew when the broker was away."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        self._timer = consumer.hub.call_repeatedly(TICK_S, _nothing)

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _nothing() -> None:
    pass
