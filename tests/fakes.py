"""Small stand-ins for what a real process would be."""

from typing import TypeVar

from workers.link import Link
from workers.messages import AnyReport, Register, Saved, Stop

R = TypeVar("R")


class FakeLink(Link):
    """Takes what an attempt reports. What is saved stays in scratch, and its last is what is registered."""

    def __init__(self) -> None:
        self.reports: list[AnyReport] = []
        self.stop: Stop | None = None

    def send(self, report: AnyReport) -> None:
        self.reports.append(report)

    def wait_for_commit(self, step: int) -> None:
        pass

    def wait_for_register(self) -> Register | None:
        saved = self.last(Saved)
        return Register(saved.weights.path, saved.state.path)

    def all(self, kind: type[R]) -> list[R]:
        return [report for report in self.reports if isinstance(report, kind)]

    def last(self, kind: type[R]) -> R:
        return self.all(kind)[-1]
