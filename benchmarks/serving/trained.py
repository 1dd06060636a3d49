"""The nets of the cases, trained by the service itself; plain PyTorch and the peers get its weights."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.serving.cases import Case
from benchmarks.serving.pictures import Pixels, encode, make_pictures, write_zip
from modelyard import Client

#: One of each class, that no training has seen.
SHOWN, SHOWN_SEED = 1, 3
WAIT_S = 300.0


class NotTrained(Exception):
    """A job did not succeed; the message says why."""


@dataclass(frozen=True)
class Trained:
    """`folder` holds weights.pt, pictures.npy and, for pictures of three channels, a JPEG of each."""

    case: Case
    folder: Path
    pictures: Pixels

    @property
    def weights(self) -> Path:
        return self.folder / "weights.pt"

    @property
    def jpegs(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.folder.glob("*.jpg"))]


def train(client: Client, case: Case, folder: Path) -> Trained:
    folder.mkdir()
    client.datasets.push(case.name, write_zip(case, folder / "images.zip"))
    train_version(client, case.spec(case.name), folder / "weights.pt")
    return Trained(case, folder, write_shown(case, folder))


def train_version(client: Client, spec: dict[str, object], weights: Path) -> int:
    """The version that it made, whose weights lie in the file."""
    job = client.jobs.submit(spec).wait(WAIT_S, raise_on_failure=False)
    if job.state != "succeeded" or job.registered is None:
        raise NotTrained(f"the job of {spec['name']} ended {job.state}, expected succeeded: {job.error}")
    made = client.models.version(job.registered.model, job.registered.version)
    client.checkpoints.download(made.lineage.checkpoint, weights)
    return made.version


def write_shown(case: Case, folder: Path) -> Pixels:
    """The pictures that are asked about, for the plain forward beside us."""
    pictures, _ = make_pictures(case, SHOWN, SHOWN_SEED)
    np.save(folder / "pictures.npy", pictures)
    if case.shape[0] > 1:
        for number, pixels in enumerate(pictures):
            (folder / f"{number}.jpg").write_bytes(encode(pixels, "JPEG"))
    return pictures
