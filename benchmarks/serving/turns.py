"""One side's turn: its server starts, its answers are compared with plain PyTorch's, the load runs, it ends.
No other server lives meanwhile."""

import http.client
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.serving.asking import Request, WrongAnswer, ask
from benchmarks.serving.environments import python_of
from benchmarks.serving.results import Measured
from benchmarks.serving.servers import free_port, running
from benchmarks.serving.sides import Peer, Variant
from benchmarks.serving.wrk import press, warm_up
from deploy.embed import running_stack


@dataclass(frozen=True)
class Place:
    """Where all of it happens, and how long a load lasts."""

    folder: Path
    environments: Path
    seconds: int

    @property
    def home(self) -> Path:
        """Of our stack: models trained in one turn are there in the next."""
        return self.folder / "home"


@dataclass(frozen=True)
class Ours:
    """Our stack in its turn."""

    url: str
    key: str

    def has_v2(self, model: str) -> bool:
        """Whether it speaks the Open Inference Protocol."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        try:
            connection.request("GET", f"/v2/models/{model}", headers={"Authorization": f"Bearer {self.key}"})
            return connection.getresponse().status == 200
        finally:
            connection.close()


@contextmanager
def our_turn(place: Place) -> Iterator[Ours]:
    with running_stack(place.home) as stack:
        yield Ours(stack.url, stack.key)


@contextmanager
def turn_of(place: Place, peer: Peer, variant: Variant, weights: Path, request: Request) -> Iterator[str]:
    """The URL of the peer while it runs."""
    port = free_port()
    python = python_of(place.environments, peer.kind, peer.requirements)
    told = {"BENCH_PORT": str(port), "BENCH_WEIGHTS": str(weights), **variant.environment}
    url, log = f"http://127.0.0.1:{port}", place.folder / f"{peer.kind}.log"
    with running(peer.arguments(python, port), url, request, told, log):
        yield url


def check(url: str, requests: Sequence[Request], expected: Sequence[int]) -> None:
    """Raises WrongAnswer where a picture is taken for another class than plain PyTorch takes it for."""
    came = [ask(url, request) for request in requests]
    if came != [*expected]:
        raise WrongAnswer(f"{url}{requests[0].path}: expected the classes {[*expected]}, got {came}")


def measure(place: Place, url: str, request: Request, connections: int, times_longer: int = 1) -> Measured:
    warm_up(url, request, connections, place.folder)
    return press(url, request, connections, times_longer * place.seconds, place.folder)
