"""The children of one attempt, one a device, behind the interface of one. The first speaks for all; where one
dies they all end."""

import multiprocessing.connection
import tempfile
from pathlib import Path

from msgspec.structs import replace

from workers.children import Child
from workers.messages import AnyCommand, AnyReport, Order


def start(order: Order) -> "Child | Ranks":
    """As many processes as the order's `world`."""
    return Child(order) if order.world == 1 else Ranks(order)


class Ranks:
    def __init__(self, order: Order) -> None:
        scratch = Path(order.scratch)
        scratch.mkdir(parents=True, exist_ok=True)
        # A name of its own for each start: a file that others have met at sends these astray.
        folder = tempfile.mkdtemp(prefix="ranks-", dir=scratch)
        order = replace(order, rendezvous=f"{folder}/rendezvous")
        self._children: list[Child] = []
        try:
            for rank in range(order.world):
                board = order.board if rank == 0 else ""
                self._children.append(Child(replace(order, rank=rank, board=board)))
        except BaseException:
            self.end()
            raise

    def wait(self, timeout_s: float, *others: multiprocessing.connection.Connection) -> None:
        """Until a child has something to say or ended, one of `others` has something, or the time is over."""
        waited = [source for child in self._children for source in child.sources]
        multiprocessing.connection.wait([*waited, *others], timeout_s)

    def reports(self) -> list[AnyReport]:
        """What has arrived; never blocks."""
        return [report for child in self._children for report in child.reports()]

    def tell(self, command: AnyCommand) -> None:
        """The first, which agrees on it with the others."""
        self._children[0].tell(command)

    @property
    def alive(self) -> bool:
        return all(child.alive for child in self._children)

    @property
    def exit_reason(self) -> str:
        ended = [(rank, child) for rank, child in enumerate(self._children) if not child.alive]
        return ", ".join(f"{child.exit_reason} in rank {rank}" for rank, child in ended)

    def write_stacks(self) -> None:
        for child in self._children:
            child.write_stacks()

    def end(self) -> None:
        for child in self._children:
            child.process.kill()  # all before one is waited for: what is left alone complains
        for child in self._children:
            child.end()
