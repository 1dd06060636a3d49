"""What a child is told: the version's files, where the rows lie, and how many of them have their part."""

from pathlib import Path

from core.db.models import BatchPrediction, Version
from core.db.statements import batch_predictions as statements
from core.db.statements import datasets, models
from core.storage.durable import Damaged, sha256_file, verify
from core.uploads import upload_key
from modelyard.specs import JobErrorCode
from workers.house import House
from workers.orders import Unavailable
from workers.predictions.ledger import Ledger
from workers.predictions.messages import BatchOrder, FromDataset, FromUpload

#: A part is closed once it has so many rows, or is some seconds old.
PART_ROWS = 16 * 1024


def order_of(
    house: House, batch: BatchPrediction, ledger: Ledger, scratch: Path, slots: list[int]
) -> BatchOrder:
    """Raises Unavailable where a file is gone or damaged."""
    manifest, weights = _version_files(house, batch)
    with house.database.read() as session:
        parts = list(session.scalars(statements.parts_of(batch.id)))
    start, errors = sum(part.rows for part in parts), sum(part.errors for part in parts)
    ledger.begins(start, errors)
    return BatchOrder(
        batch=batch.id,
        manifest=str(manifest),
        weights=str(weights),
        rows=_rows(house, batch),
        format=batch.format,
        scratch=str(scratch),
        threads=house.settings.cpu_threads(),
        use_gpu=house.settings.pool == "gpu",
        slots=tuple(slots),
        plugins=house.settings.plugins,
        start=start,
        errors=errors,
        part_rows=PART_ROWS,
    )


def _version_files(house: House, batch: BatchPrediction) -> tuple[Path, Path]:
    with house.database.read() as session:
        version = session.get(Version, batch.version_id)
        row = None if version is None else session.scalars(models.weights_of(version.id)).one_or_none()
    name = f"{batch.model}@{batch.version}"
    if version is None or row is None:
        raise Unavailable(JobErrorCode.WEIGHTS_MISMATCH, f"{name} was deleted", "name another version")
    try:
        manifest = house.storage.fetch(version.manifest_key)
        if sha256_file(manifest) != version.manifest_sha256:
            raise Damaged(f"{manifest.name}: its sha256 is not the registered one")
        weights = house.storage.fetch(row.weights_key)
        verify(weights, row.weights_bytes, row.weights_sha256)
    except (Damaged, FileNotFoundError) as error:
        message = f"the files of {name} are damaged or gone: {error}"
        raise Unavailable(JobErrorCode.WEIGHTS_MISMATCH, message, "name another version") from error
    return manifest, weights


def _rows(house: House, batch: BatchPrediction) -> FromDataset | FromUpload:
    try:
        if batch.upload_id is not None:
            path = house.storage.fetch(upload_key(batch.upload_id))
            return FromUpload(str(path), house.settings.ingest_memory_bytes)
        assert batch.dataset_id is not None
        with house.database.read() as session:
            dataset = session.scalars(datasets.dataset_of_job(batch.dataset_id)).one()
        prefix = f"datasets/{dataset.id}/{dataset.fence}"
        arrow = house.storage.fetch(f"{prefix}/data.arrow")
        return FromDataset(str(arrow), str(house.storage.fetch(f"{prefix}/manifest.json")), batch.split)
    except FileNotFoundError as error:
        message = f"the file of the rows, {error}, is gone"
        raise Unavailable(JobErrorCode.DATASET_UNAVAILABLE, message) from error
