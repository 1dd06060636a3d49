"""From a version's row to a loaded predictor: files fetched, compared with what was registered, replayed."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from core.db.models import Checkpoint, Version
from core.errors import Gone, ModelyardError
from core.predict import Predictor
from core.storage import Storage
from core.storage.durable import Damaged, sha256_file, verify


def prepared_version(storage: Storage, version: Version, weights: Checkpoint) -> Callable[[], Predictor]:
    """What loads it; by then its files are here and are what was registered. Blocks for the time of reading.
    Raises Gone where they are no longer there, and a plain ModelyardError where they are other ones."""
    name = f"{version.model}@{version.version}"
    try:
        manifest_path = storage.fetch(version.manifest_key)
        weights_path = storage.fetch(weights.weights_key)
    except FileNotFoundError as error:
        raise Gone(f"The files of {name} are no longer there.", code="collected") from error
    try:
        if sha256_file(manifest_path) != version.manifest_sha256:
            raise Damaged(f"{manifest_path.name}: its sha256 is not the registered one")
        verify(weights_path, weights.weights_bytes, weights.weights_sha256)
    except Damaged as error:
        raise ModelyardError(f"{name} cannot be loaded: {error}.", code="version_damaged") from error
    return partial(_load, name, manifest_path, weights_path)


def _load(name: str, manifest_path: Path, weights_path: Path) -> Predictor:
    """Blocks. Raises Gone where the files were collected since, and a plain ModelyardError where the golden
    samples do not come out as they did when it was registered; replaying them also warms it."""
    try:
        predictor = Predictor.load(manifest_path, weights_path)
    except FileNotFoundError as error:
        raise Gone(f"The files of {name} are no longer there.", code="collected") from error
    difference = predictor.replay()
    if difference > predictor.manifest.tolerance:
        raise ModelyardError(
            f"{name} cannot be loaded: its golden samples come out {difference:g} apart here, "
            f"{predictor.manifest.tolerance:g} is allowed.",
            code="version_differs",
        )
    return predictor
