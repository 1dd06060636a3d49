"""The models of a soak: one whose alias flips, some that take turns in the cache, one that is damaged on
disk. What each version says of each picture is known from plain PyTorch."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.serving import alone
from benchmarks.serving.cases import MLP
from benchmarks.serving.pictures import Pixels, write_zip
from benchmarks.serving.trained import NotTrained, train_version, write_shown
from modelyard import Client

FLIPPED, DAMAGED = "flipped", "damaged"
TURNING = ("turning-0", "turning-1", "turning-2")
VERSIONS = (1, 2)
#: A version holds 2.7 MB: of the eight that are asked about half fit.
CACHE_BYTES = 12_000_000
#: Scores of one picture by two versions differ by more than this, so that one is never taken for the other.
APART = 0.01

#: Trained so little that the seed still shows in every score.
BARELY_TRAINED = replace(MLP, epochs=1, lr=0.01)

#: Scores by picture.
Known = list[list[float]]


@dataclass(frozen=True)
class Soaked:
    """`known` by model and version, without the damaged."""

    pictures: Pixels
    known: dict[tuple[str, int], Known]

    def names(self) -> list[str]:
        return [f"{model}@{version}" for model, version in self.known]


def make_models(client: Client, folder: Path, home: Path) -> Soaked:
    client.datasets.push(MLP.name, write_zip(MLP, folder / "images.zip"))
    known: dict[tuple[str, int], Known] = {}
    for model in (FLIPPED, *TURNING):
        for version in VERSIONS:
            known[model, version] = make_version(
                client, model, folder / f"{model}-{version}", seed=len(known)
            )
        require_apart(known[model, 1], known[model, 2])
    client.models.set_alias(FLIPPED, "production", 1)
    damaged = folder / DAMAGED
    make_version(client, DAMAGED, damaged, seed=len(known))
    damage(home, (damaged / "weights.pt").read_bytes())
    return Soaked(np.load(damaged / "pictures.npy"), known)


def make_version(client: Client, model: str, folder: Path, seed: int) -> Known:
    folder.mkdir()
    train_version(client, BARELY_TRAINED.spec(MLP.name, model, seed), folder / "weights.pt")
    write_shown(MLP, folder)
    return alone.answers(MLP.name, folder).scores


def require_apart(first: Known, second: Known) -> None:
    differences = np.abs(np.array(first) - np.array(second)).max(axis=1)
    if differences.min() <= APART:
        raise NotTrained(
            f"expected two versions whose scores differ by more than {APART}, got {differences.min():g}: "
            "train them with other seeds"
        )


def damage(home: Path, weights: bytes) -> None:
    """Turns over one byte in the middle of the stored file that holds these weights."""
    for path in (home / "artifacts").rglob("*"):
        if path.is_file() and path.stat().st_size == len(weights) and path.read_bytes() == weights:
            path.chmod(0o600)
            with path.open("r+b") as file:
                file.seek(len(weights) // 2)
                file.write(bytes([weights[len(weights) // 2] ^ 0xFF]))
            return
    raise NotTrained("expected the damaged version's weights below the home's artifacts, found no such file")
