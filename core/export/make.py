"""One export, top to bottom: the weights as they were registered, the file, the proof."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import assert_never

from msgspec import Struct
from torch import Tensor

from core.data.instances import BadInstance
from core.errors import Conflict, Invalid, ModelyardError
from core.export import about, program, tensors
from core.export.graph import Traced, batches, trace
from core.nets import artifacts
from core.nets.artifacts import VersionManifest
from core.predict import Predictor, Row
from core.storage.durable import Damaged, StoredFile, describe, verify
from modelyard.specs import WeightsFormat

#: What the extra `export` installs.
EXTRA = ("onnx", "onnxscript", "onnxruntime")


class Order(Struct, frozen=True):
    """`weights` and `manifest` are local files; there is no manifest where no version was registered from the
    checkpoint. `lineage` is where they come from, by name. The export is written to `target`."""

    kind: WeightsFormat
    weights: StoredFile
    manifest: StoredFile | None
    lineage: dict[str, str]
    target: str


def make(order: Order) -> StoredFile:
    """Raises Invalid where the net has no form in this format, Conflict where there is nothing to compare
    with, and a plain ModelyardError where the files or the answers are not what was registered."""
    state, manifest = _registered(order)
    header = {f"{about.PREFIX}{name}": text for name, text in order.lineage.items()}
    target = Path(order.target)
    match order.kind:
        case WeightsFormat.SAFETENSORS:
            _make_tensors(state, manifest, header, target)
        case WeightsFormat.ONNX | WeightsFormat.TORCH_EXPORT:
            assert manifest is not None, "a graph is asked for of a version"
            _make_graph(order.kind, Predictor.of(manifest, state), header, target)
        case WeightsFormat.PT:
            raise AssertionError("the checkpoint itself is sent")
        case other:
            assert_never(other)
    return describe(target)


def require_extra() -> None:
    """Raises Invalid where the packages that write and read ONNX are not installed. Loads none of them."""
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise Invalid(
            f"This service writes no ONNX, since it lacks {', '.join(missing)}: its operator installs the "
            "extra `export`, as in `pip install 'modelyard[server,export]'`. The formats pt, safetensors and "
            "torch_export are there.",
            code="extra_missing",
        )


def _registered(order: Order) -> tuple[dict[str, Tensor], VersionManifest | None]:
    try:
        for file in (order.weights, order.manifest):
            if file is not None:
                verify(Path(file.path), file.size, file.sha256)
    except Damaged as error:
        raise ModelyardError(f"The weights cannot be exported: {error}.", code="version_damaged") from error
    # Mapped, so that a large net stands in memory once.
    state = artifacts.load(Path(order.weights.path), is_mapped=True)
    return state, None if order.manifest is None else artifacts.read_manifest(Path(order.manifest.path))


def _make_tensors(
    state: dict[str, Tensor], manifest: VersionManifest | None, header: dict[str, str], target: Path
) -> None:
    if manifest is not None and manifest.golden:
        predictor = Predictor.of(manifest, state)
        row = _golden_rows(predictor)[:1]
        ports = about.ports_of(manifest, predictor.batch(row), predictor.outputs(row))
        header = header | about.describe(predictor, ports)
    tensors.write(state, header, target)
    came = tensors.read(target)
    if differing := tensors.differing(state, came):
        raise ModelyardError(
            f"Read back, the file has other numbers under {', '.join(differing[:5])}.", code="export_differs"
        )
    if manifest is not None:
        _require_alike(manifest, Predictor.of(manifest, came).replay())


def _make_graph(kind: WeightsFormat, predictor: Predictor, header: dict[str, str], target: Path) -> None:
    inputs = predictor.batch(_golden_rows(predictor))
    traced = trace(predictor, inputs)
    header = header | about.describe(predictor, traced.ports)
    came = _written(kind, traced, header, target, batches(traced, inputs))
    _require_alike(predictor.manifest, predictor.apart(came))


def _written(
    kind: WeightsFormat, traced: Traced, header: dict[str, str], target: Path, rows: list[list[Tensor]]
) -> Tensor:
    """Answers of what was written and read back."""
    if kind is WeightsFormat.TORCH_EXPORT:
        program.write(traced, header, target)
        return program.answers(target, rows)
    require_extra()
    # Seconds of imports, of packages that need not be there.
    onnx_graph = import_module("core.export.onnx_graph")
    onnx_graph.write(traced, header, target)
    answers: Tensor = onnx_graph.answers(target, rows)
    return answers


def _golden_rows(predictor: Predictor) -> list[Row]:
    if not predictor.manifest.golden:
        raise Conflict(
            "This version has no golden samples to compare a graph with. The formats pt and safetensors are "
            "there.",
            code="no_golden_samples",
        )
    try:
        return predictor.golden_rows()
    except BadInstance as error:
        detail = f"A golden sample is no longer readable: {error}."
        raise ModelyardError(detail, code="version_differs") from error


def _require_alike(manifest: VersionManifest, difference: float) -> None:
    if difference > manifest.tolerance:
        raise Invalid(
            f"Written in this format the net answers its golden samples {difference:g} apart; "
            f"{manifest.tolerance:g} is allowed. The formats pt and safetensors hold its weights.",
            code="export_differs",
        )
