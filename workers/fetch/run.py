"""One source from its class to the file that ingest reads."""

import hashlib
import inspect
from pathlib import Path
from typing import Any

import torchvision.datasets

from core.data.sources import FETCHED, FetchedSet
from core.errors import ModelyardError
from modelyard.specs import TorchvisionSource
from workers.fetch import Fetched
from workers.fetch.arrays import write_arrays
from workers.fetch.download import Downloads
from workers.fetch.files import write_files


def fetch(source: TorchvisionSource, root: Path, out_dir: Path, downloads: Downloads) -> Fetched:
    """`root` takes what torchvision stores. Raises ModelyardError, naming the URL where one failed."""
    known = FETCHED[source.dataset]
    downloads.take_over()
    try:
        datasets = _open(source, known, root)
        if known.holds == "arrays":
            path, options = out_dir / "fetched.npz", write_arrays(datasets, out_dir / "fetched.npz")
            format = "arrays"
        else:
            path, options = out_dir / "fetched.zip", write_files(datasets, out_dir / "fetched.zip")
            format = "image_csv"
    except ModelyardError:
        raise
    except Exception as error:  # its classes raise nearly anything on a file that is not as they know it
        raise downloads.problem(error) from error
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Fetched(path.name, format, options, path.stat().st_size, digest)


def _open(source: TorchvisionSource, known: FetchedSet, root: Path) -> dict[str, Any]:
    """The class's own object of each split, downloaded."""
    kind = getattr(torchvision.datasets, source.dataset)
    # Where a class lets us, an item is its file, not the picture in it.
    more = {"loader": str} if "loader" in inspect.signature(kind).parameters else {}
    return {
        split: kind(str(root), download=True, **source.options, **arguments, **more)
        for split, arguments in known.splits.items()
    }
