"""Who is compared: the peers, how each is installed and started, and the ways of running it that are
tried."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.serving.asking import Request, as_json, v2_json
from benchmarks.serving.pictures import Pixels

Kind = Literal["ours", "ours-v2", "fastapi", "litestar", "litserve", "mlserver", "raw-uvicorn", "raw-granian"]
KINDS: tuple[Kind, ...] = (
    "ours",
    "ours-v2",
    "fastapi",
    "litestar",
    "litserve",
    "mlserver",
    "raw-uvicorn",
    "raw-granian",
)
LABELS: dict[Kind, str] = {
    "ours": "Modelyard, JSON",
    "ours-v2": "Modelyard, V2 binary",
    "fastapi": "FastAPI + no_grad",
    "litestar": "bare Litestar",
    "litserve": "LitServe",
    "mlserver": "MLServer",
    "raw-uvicorn": "raw ASGI, uvicorn",
    "raw-granian": "raw ASGI, granian",
}
#: The servers that a user would take instead; the others show what is left on the table.
SERVERS: tuple[Kind, ...] = ("fastapi", "litserve", "mlserver")

PEERS_PACKAGE = "benchmarks.serving.peers"


@dataclass(frozen=True)
class Variant:
    """One way of running a peer. The first of a peer is as it comes."""

    label: str
    environment: dict[str, str]


DEFAULT = Variant("", {})
ONE_THREAD = Variant("one thread of torch", {"OMP_NUM_THREADS": "1"})
GATHERED = Variant("batches of 32", {"BENCH_BATCH": "32"})
GATHERED_ONE_THREAD = Variant(
    f"{GATHERED.label}, {ONE_THREAD.label}", GATHERED.environment | ONE_THREAD.environment
)


@dataclass(frozen=True)
class Peer:
    """`command` follows the interpreter, with `{port}` to be filled in."""

    kind: Kind
    requirements: tuple[str, ...]
    command: tuple[str, ...]
    request: Callable[[Pixels], Request]
    variants: tuple[Variant, ...] = (DEFAULT, ONE_THREAD)

    def arguments(self, python: Path, port: int) -> list[str]:
        return [str(python), *(word.format(port=port) for word in self.command)]


def posted(pixels: Pixels) -> Request:
    return as_json("/predict", pixels)


def posted_v2(pixels: Pixels) -> Request:
    return v2_json("mlp", pixels)


def on_uvicorn(module: str) -> tuple[str, ...]:
    """uvicorn at its fastest: uvloop, httptools, no access line."""
    return (
        *("-m", "uvicorn", "--factory", f"{PEERS_PACKAGE}.{module}:make_app"),
        *("--port", "{port}", "--loop", "uvloop", "--http", "httptools"),
        *("--no-access-log", "--log-level", "warning", "--lifespan", "auto"),
    )


UVICORN = ("uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0")

PEERS: dict[Kind, Peer] = {
    peer.kind: peer
    for peer in (
        Peer("fastapi", ("fastapi==0.165.0", *UVICORN), on_uvicorn("with_fastapi"), posted),
        Peer("litestar", ("litestar==2.25.0", *UVICORN), on_uvicorn("with_litestar"), posted),
        Peer(
            "litserve",
            ("litserve==0.2.19", *UVICORN),
            ("-m", f"{PEERS_PACKAGE}.with_litserve"),
            posted,
            (DEFAULT, ONE_THREAD, GATHERED, GATHERED_ONE_THREAD),
        ),
        Peer(
            "mlserver",
            ("mlserver==1.7.1", *UVICORN[1:]),
            ("-m", f"{PEERS_PACKAGE}.with_mlserver"),
            posted_v2,
            (DEFAULT, ONE_THREAD, GATHERED, GATHERED_ONE_THREAD),
        ),
        Peer("raw-uvicorn", ("msgspec==0.22.0", *UVICORN), on_uvicorn("with_raw"), posted),
        Peer(
            "raw-granian",
            ("msgspec==0.22.0", "granian==2.8.7", "uvloop==0.23.0"),
            (
                *("-m", "granian", "--factory", "--interface", "asginl", "--workers", "1"),
                *("--port", "{port}", "--no-access-log", "--log-level", "warning"),
                f"{PEERS_PACKAGE}.with_raw:make_app",
            ),
            posted,
        ),
    )
}
