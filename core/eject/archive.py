"""`eject.zip`: the script with what it needs beside it."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from torch import Tensor

from core.data.manifest import Manifest
from core.data.targets import resolve_targets
from core.eject import coverage, data, script
from core.eject.pixels import Unwritable
from core.eject.script import PARTS, Trained
from core.errors import Conflict
from modelyard.specs import JobSpec, ProblemError

#: Files of a zip carry a time; this one makes equal jobs equal archives.
_LONG_AGO = (1980, 1, 1, 0, 0, 0)

_OF_PARTS = "What the job ran that torch and torchvision don't have, cut out of the modules that it ran."
_PACKAGES = ("numpy", "pillow", "pyarrow", "torchvision")


class Source(Struct, frozen=True):
    """A job that has ended well, and the local file of its dataset. `dataset` is name@version, `path` where
    the service gives its bytes; `weights` is the fingerprint of the last checkpoint."""

    job: str
    spec: dict[str, Any]
    trained: Trained
    arrow: Path
    manifest: Manifest
    dataset: str
    path: str
    weights: str


def eject(source: Source) -> bytes:
    """A zip archive. Raises Conflict with all that no script can be written for."""
    return zipped(files_of(source))


def files_of(source: Source) -> dict[str, str]:
    """By name. Raises Conflict."""
    spec = msgspec.convert(source.spec, JobSpec)
    manifest = source.manifest
    targets = resolve_targets(spec, manifest, [], [])
    assert targets is not None, "the spec was checked against this dataset"
    _require(coverage.refusals(spec, source.trained.resolved, manifest, targets))
    rows = data.read(source.arrow, manifest, spec, targets)
    _require(coverage.step_refusals(rows.prepared))
    try:
        made = script.write(
            f"{spec.name}: {source.job} as plain PyTorch.", spec, manifest, targets, rows, source.trained
        )
    except Unwritable as error:
        _require([ProblemError("/transforms/train", coverage.CODE, f"A script has no form for {error}.")])
        raise
    where = {
        "dataset": source.dataset,
        "path": source.path,
        "sha256": manifest.data_sha256,
        "bytes": manifest.data_bytes,
        "job": source.job,
        "weights": source.weights,
    }
    content = data.content(rows, manifest, targets, where)
    files = {
        "README.md": readme(source),
        "train.py": made.text,
        "data.json": msgspec.json.format(msgspec.json.encode(content), indent=1).decode() + "\n",
        "requirements.txt": requirements(source.trained.resolved),
    }
    if not made.ours.is_empty:
        files[f"{PARTS}.py"] = made.ours.text(_OF_PARTS)
    return files


def zipped(files: Mapping[str, str]) -> bytes:
    """Equal bytes for equal files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _LONG_AGO)
            info.external_attr = 0o644 << 16
            archive.writestr(info, files[name], zipfile.ZIP_DEFLATED)
    return out.getvalue()


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(state[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def requirements(resolved: Mapping[str, Any]) -> str:
    """torch as the job had it, without the name of its build; the others as this process has them."""
    versions = {"torch": str(resolved["torch"]), **{name: metadata.version(name) for name in _PACKAGES}}
    return "".join(f"{name}=={version.partition('+')[0]}\n" for name, version in versions.items())


def readme(source: Source) -> str:
    resolved = source.trained.resolved
    return f"""# {source.job}, written out

`train.py` is what this job did, in plain PyTorch: the same net, the same rows in the same order, the same
steps. With torch {resolved["torch"]}, on a CPU of the same kind ({resolved["cpu_capability"]}), it gives
the same weights to the bit; elsewhere the same up to rounding.

    pip install -r requirements.txt
    curl -H "Authorization: Bearer $MODELYARD_KEY" -o data.arrow "$MODELYARD_URL{source.path}"
    python train.py data.arrow

It prints the SHA-256 of the weights' bytes. That of the job's last checkpoint is

    {source.weights}

`data.json` names the dataset ({source.dataset}) by its hash, the rows that train, validate and test, and what
was learned on the training rows before the net saw them.
"""


def _require(errors: list[ProblemError]) -> None:
    if errors:
        told = " ".join(f"{error.pointer}: {error.message}" for error in errors[:5])
        raise Conflict(
            f"No plain script can be written for this job. {told} Its weights are at "
            "GET /v1/checkpoints/{id}/weights all the same.",
            code=coverage.CODE,
            errors=errors,
        )
