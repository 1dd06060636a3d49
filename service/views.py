"""Rows as clients read them."""

from typing import Any

import msgspec

from core.data.manifest import Manifest
from core.db.models import (
    AliasMove,
    AuditEntry,
    BatchPrediction,
    Checkpoint,
    Dataset,
    Delivery,
    Event,
    Job,
    Key,
    Metric,
    Version,
    Webhook,
)
from core.db.statements import batch_predictions
from core.db.statements.jobs import TERMINAL
from modelyard import specs

#: What a manifest says beyond the fields that a dataset has of its own.
_STATS = ("class_counts", "image_mode", "image_sizes", "channel_mean", "channel_std", "columns")

DATASET_STATES = {
    "queued": specs.DatasetState.PROCESSING,
    "ingesting": specs.DatasetState.PROCESSING,
    "ready": specs.DatasetState.READY,
    "failed": specs.DatasetState.FAILED,
}


def dataset_view(row: Dataset) -> specs.Dataset:
    view = specs.Dataset(
        id=row.id,
        name=row.name,
        version=row.version,
        state=DATASET_STATES[row.state],
        format=row.format,
        bytes=row.bytes,
        sha256=row.sha256,
        created_at=row.created_at,
        error=msgspec.convert(row.error, specs.Problem) if row.error else None,
        source=row.source,
    )
    if row.manifest is not None:
        manifest = manifest_of(row)
        view.format = manifest.format
        view.num_samples = manifest.num_samples
        view.splits = manifest.splits
        view.classes = manifest.classes
        view.features = manifest.features
        view.stats = {
            name: value for name in _STATS if (value := msgspec.to_builtins(getattr(manifest, name)))
        }
    return view


def manifest_of(row: Dataset) -> Manifest:
    return msgspec.convert(row.manifest, Manifest)


def job_view(row: Job, dataset: specs.JobDataset) -> specs.Job:
    return specs.Job(
        id=row.id,
        name=row.name,
        state=specs.JobState(row.state),
        terminal=specs.JobState(row.state) in TERMINAL,
        wanted=specs.Wanted(row.wanted),
        dataset=dataset,
        spec=row.spec,
        attempt=row.attempt,
        losses=row.losses,
        progress=msgspec.convert(row.progress, specs.Progress),
        created_at=row.created_at,
        metrics=row.metrics,
        best=_convert(row.best, specs.BestCheckpoint),
        resolved=row.resolved,
        registered=_convert(row.registered, specs.Registered),
        error=_convert(row.error, specs.JobError),
        transitions=msgspec.convert(row.transitions, list[specs.Transition]),
        warnings=row.warnings,
        forked_from=_forked_from(row),
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _forked_from(row: Job) -> specs.ForkedFrom | None:
    return None if row.forked_from is None else specs.ForkedFrom(row.forked_from, row.start_checkpoint_id)


def _convert(value: dict[str, Any] | None, kind: type[Any]) -> Any:
    return None if value is None else msgspec.convert(value, kind)


def batch_view(row: BatchPrediction, dataset: Dataset | None) -> specs.BatchPrediction:
    """`dataset` is the one that its rows come from, if they do."""
    state, results = specs.BatchState(row.state), row.results or {}
    return specs.BatchPrediction(
        id=row.id,
        state=state,
        terminal=state in batch_predictions.TERMINAL,
        model=row.model,
        version=row.version,
        format=row.format,
        attempt=row.attempt,
        losses=row.losses,
        progress=msgspec.convert(row.progress, specs.BatchProgress),
        created_at=row.created_at,
        dataset=(
            specs.BatchDataset(dataset.name, dataset.version, dataset.sha256, row.split)
            if dataset is not None
            else None
        ),
        upload=row.upload_id,
        output=_convert(results.get("output"), specs.BatchFile),
        errors=_convert(results.get("errors"), specs.BatchFile),
        error=_convert(row.error, specs.JobError),
        transitions=msgspec.convert(row.transitions, list[specs.BatchTransition]),
        warnings=row.warnings,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def event_view(row: Event) -> specs.Event:
    return specs.Event(seq=row.seq, type=row.type, at=row.at, data=row.data)


def metric_view(row: Metric) -> specs.Metric:
    return specs.Metric(
        name=row.name,
        step=row.step,
        epoch=row.epoch,
        value=row.value,
        at=row.at,
        non_finite=row.non_finite,
    )


def checkpoint_view(row: Checkpoint) -> specs.Checkpoint:
    return specs.Checkpoint(
        id=row.id,
        job=row.job_id,
        step=row.step,
        epoch=row.epoch,
        size=row.weights_bytes,
        sha256=row.weights_sha256,
        state=row.state,
        is_best=row.is_best,
        created_at=row.created_at,
        metrics=row.metrics,
    )


def version_view(row: Version, aliases: list[str]) -> specs.ModelVersion:
    return specs.ModelVersion(
        id=row.id,
        model=row.model,
        version=row.version,
        state=row.state,
        task=row.task,
        signature=msgspec.convert(row.signature, specs.Signature),
        metrics=row.metrics,
        lineage=msgspec.convert(row.lineage, specs.Lineage),
        spec=row.spec,
        created_at=row.created_at,
        classes=row.classes,
        transforms=row.transforms,
        aliases=aliases,
    )


def whole_version_view(row: Version, aliases: list[str]) -> specs.ModelVersion:
    """With the tables that are too long for a list of versions."""
    view = version_view(row, aliases)
    view.evaluation = msgspec.convert(row.evaluation, specs.Evaluation | None)
    return view


def key_view(row: Key) -> specs.Key:
    return specs.Key(
        id=row.id,
        name=row.name,
        owner=row.owner,
        scopes=row.scopes,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        rotated_from=row.rotated_from,
    )


def audit_view(row: AuditEntry) -> specs.AuditEntry:
    return specs.AuditEntry(
        id=row.id,
        at=row.at,
        owner=row.owner,
        key=row.key_id,
        name=row.key_name,
        action=row.action,
        target=row.target,
        made=row.made,
        request_id=row.request_id,
        address=row.address,
    )


def webhook_view(row: Webhook) -> specs.Webhook:
    return msgspec.convert(row, specs.Webhook, from_attributes=True)


def delivery_view(row: Delivery) -> specs.Delivery:
    state = specs.DeliveryState(row.state)
    return specs.Delivery(
        id=row.message_id,
        type=specs.WebhookEvent(row.type),
        state=state,
        attempts=row.attempts,
        data=msgspec.json.decode(row.body)["data"],
        created_at=row.created_at,
        status=row.status,
        error=row.error,
        next_at=row.next_at if state is specs.DeliveryState.WAITING else None,
        finished_at=row.finished_at,
    )


def alias_move_view(row: AliasMove) -> specs.AliasMove:
    by = specs.Mover(row.owner, row.key_id, row.key_name)
    return specs.AliasMove(
        seq=row.seq,
        kind=specs.MoveKind(row.kind),
        at=row.at,
        from_version=row.from_version,
        to_version=row.to_version,
        by=by,
        reason=row.reason,
        required=_convert(row.required, specs.Compared),
    )
