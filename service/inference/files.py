"""A version's files, and the predictor that they make. An inference process imports this: it knows no row."""

from dataclasses import dataclass
from pathlib import Path

from core.errors import Gone, ModelyardError
from core.predict import Predictor


@dataclass(frozen=True)
class VersionFiles:
    """Local files that are what was registered; `name` is what messages call the version."""

    name: str
    manifest: Path
    weights: Path


def load_files(files: VersionFiles, device: str = "cpu") -> Predictor:
    """Blocks. Raises Gone where the files were collected since, and a plain ModelyardError where the golden
    samples do not come out as they did when it was registered; replaying them also warms it."""
    try:
        predictor = Predictor.load(files.manifest, files.weights, device)
    except FileNotFoundError as error:
        raise Gone(f"The files of {files.name} are no longer there.", code="collected") from error
    difference = predictor.replay()
    if difference > predictor.manifest.tolerance:
        raise ModelyardError(
            f"{files.name} cannot be loaded: its golden samples come out {difference:g} apart here, "
            f"{predictor.manifest.tolerance:g} is allowed.",
            code="version_differs",
        )
    return predictor
