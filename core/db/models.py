"""The tables. A plain DeclarativeBase, so that a worker that imports it loads no web framework.

Every row that a user can see has an owner. Times are UTC and aware.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    desc,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


#: The newest migration that these tables are of.
REVISION = "0009"


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC on every database; SQLite has no zones and gives naive values back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def utc_now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[Any]: JSON,
        int: BigInteger().with_variant(Integer, "sqlite"),
    }


class SchemaFloor(Base):
    """One row: the oldest `REVISION` of code that may use the schema. A migration that only adds leaves it;
    one that takes something away raises it, once no older code runs."""

    __tablename__ = "schema_floor"

    id: Mapped[int] = mapped_column(primary_key=True)
    revision: Mapped[str] = mapped_column(String(16))


class Key(Base):
    """An API key. Only the SHA-256 of the secret is stored.

    `revision` rises with every change after which a key remembered elsewhere is no longer what it was.
    `rotated_from` is the key in whose place this one was made.
    """

    __tablename__ = "keys"
    __table_args__ = (Index(None, "owner"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(63))
    name: Mapped[str] = mapped_column(String(63))
    secret_sha256: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    scopes: Mapped[list[Any]]
    revision: Mapped[int] = mapped_column(default=0, server_default="0")
    rotated_from: Mapped[str | None] = mapped_column(String(40))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AuditEntry(Base):
    """Who asked for a change, written in the transaction that made it. Rows are added, never changed.

    `action` is the route, `target` the path that was asked for, `made` the ids of what the transaction added.
    `key_id` and `key_name` are empty where keys are off; `address` is the client's, behind trusted proxies.
    """

    __tablename__ = "audit"
    __table_args__ = (Index(None, "owner", "id"), Index(None, "key_id", "id"))

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    at: Mapped[datetime]
    owner: Mapped[str] = mapped_column(String(63))
    key_id: Mapped[str | None] = mapped_column(String(40))
    key_name: Mapped[str | None] = mapped_column(String(63))
    action: Mapped[str] = mapped_column(String(150))
    target: Mapped[str] = mapped_column(String(500))
    made: Mapped[list[Any]]
    request_id: Mapped[str] = mapped_column(String(128))
    address: Mapped[str] = mapped_column(String(45))


class IdempotentReply(Base):
    """The first answer to an `Idempotency-Key`, stored in the transaction that did the work."""

    __tablename__ = "idempotent_replies"

    owner: Mapped[str] = mapped_column(String(63), primary_key=True)
    route: Mapped[str] = mapped_column(String(100), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_sha256: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    reply: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Dataset(Base):
    """One version of a dataset.

    `state`: queued (bytes are here, or `source` says where from) -> ingesting (a worker fetches and reads
    them) -> ready | failed -> deleted. Where there is a `source`, `source_key` and `sha256` are empty and
    `bytes` is 0 until it is fetched; then `format` and `options` are those of what was fetched.
    A deleted row is a tombstone: its bytes went, its manifest stays, its number is not given again.
    `fence`, `beat`, `losses` are the lease of the ingesting worker, as for jobs.
    """

    __tablename__ = "datasets"
    __table_args__ = (
        UniqueConstraint("owner", "name", "version"),
        Index(None, "state", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(63))
    name: Mapped[str] = mapped_column(String(63))
    version: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    revision: Mapped[int] = mapped_column(default=0)
    format: Mapped[str] = mapped_column(String(16))
    options: Mapped[dict[str, Any]]
    filename: Mapped[str] = mapped_column(String(255))
    source: Mapped[dict[str, Any] | None]
    source_key: Mapped[str] = mapped_column(String(255))
    bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    manifest: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    fence: Mapped[int] = mapped_column(default=0)
    beat: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class Upload(Base):
    """Bytes that come in pieces. `offset` is how many are durable. Once `sha256` is known all are in storage
    under `uploads/<id>/data`, and jobs and datasets may name them.
    """

    __tablename__ = "uploads"
    __table_args__ = (Index(None, "expires_at"), Index(None, "owner"))

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(63))
    filename: Mapped[str] = mapped_column(String(255))
    length: Mapped[int]
    offset: Mapped[int] = mapped_column(default=0)
    sha256: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class UploadPiece(Base):
    """What one PATCH brought, in storage under `key` until the upload is complete."""

    __tablename__ = "upload_pieces"

    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True)
    offset: Mapped[int] = mapped_column(primary_key=True)
    size: Mapped[int]
    key: Mapped[str] = mapped_column(String(255))


class Job(Base):
    """One training. `fence` rises with every claim; every write of an attempt carries it.

    `revision` rises with every change a reader could see; the watcher and ETags compare it.
    `not_before` is the earliest claim after a loss. `work` is how many multiply-adds the whole training
    takes by its plan: with the time it took, later plans say how long they will take. `upload_ids` are the
    uploads that it reads, which stay as long as it has not ended. `devices` are the slots that it holds
    while it runs, all of the worker `worker_id`. `preempted_by` is the job that its attempt must make room
    for. `submitted` is the spec as it came, which a fork patches; rows older than forks have none. A fork
    names the job it is of in `forked_from`, and in `start_checkpoint_id` whose weights it begins with.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        # In the order of claims, and with all that counting those who wait asks for.
        Index("ix_jobs_claim", "state", "wanted", "pool", desc("priority"), "queued_at", "not_before"),
        Index(None, "owner", "id"),
        Index(None, "owner", "state", "id"),
        Index(None, "owner", "name", "id"),
        Index(None, "dataset_id"),
        Index(None, "pool", "state", "finished_at"),
        Index(None, "start_checkpoint_id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(63))
    name: Mapped[str] = mapped_column(String(63))
    state: Mapped[str] = mapped_column(String(16))
    wanted: Mapped[str] = mapped_column(String(16))
    revision: Mapped[int] = mapped_column(default=0)
    pool: Mapped[str] = mapped_column(String(16))
    priority: Mapped[int] = mapped_column(default=0)
    devices: Mapped[int] = mapped_column(default=1, server_default="1")
    worker_id: Mapped[str | None] = mapped_column(String(40))
    preempted_by: Mapped[str | None] = mapped_column(String(40))
    forked_from: Mapped[str | None] = mapped_column(String(40))
    start_checkpoint_id: Mapped[str | None] = mapped_column(String(40))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    upload_ids: Mapped[list[Any] | None]
    submitted: Mapped[dict[str, Any] | None]
    spec: Mapped[dict[str, Any]]
    work: Mapped[float | None] = mapped_column(Float(53))
    warnings: Mapped[list[Any]]
    fence: Mapped[int] = mapped_column(default=0)
    beat: Mapped[int] = mapped_column(default=0)
    attempt: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    event_seq: Mapped[int] = mapped_column(default=0)
    progress: Mapped[dict[str, Any]]
    metrics: Mapped[dict[str, Any]]
    resolved: Mapped[dict[str, Any]]
    transitions: Mapped[list[Any]]
    best: Mapped[dict[str, Any] | None]
    registered: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    queued_at: Mapped[datetime]
    not_before: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Event(Base):
    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str] = mapped_column(String(32))
    at: Mapped[datetime]
    data: Mapped[dict[str, Any]]


class Metric(Base):
    """`value` is null where it was not finite; `non_finite` then says nan, inf or -inf."""

    __tablename__ = "metrics"
    __table_args__ = (Index(None, "job_id", "step", "name"),)  # in the order of pages

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    epoch: Mapped[int]
    value: Mapped[float | None] = mapped_column(Float(53))
    non_finite: Mapped[str | None] = mapped_column(String(4))
    at: Mapped[datetime]


class Checkpoint(Base):
    """Weights and state of a job at a step. `state`: ready | corrupt | collected."""

    __tablename__ = "checkpoints"
    __table_args__ = (Index(None, "job_id", "step"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(63))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    state: Mapped[str] = mapped_column(String(16))
    fence: Mapped[int]
    step: Mapped[int]
    epoch: Mapped[int]
    is_best: Mapped[bool]
    metrics: Mapped[dict[str, Any]]
    weights_key: Mapped[str] = mapped_column(String(255))
    weights_bytes: Mapped[int]
    weights_sha256: Mapped[str] = mapped_column(String(64))
    state_key: Mapped[str] = mapped_column(String(255))
    state_bytes: Mapped[int]
    state_sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]


class Version(Base):
    """One registered checkpoint of a model. `manifest_key` names the JSON that `core.predict` loads.

    `state`: ready | rejected -> deleted. A deleted row is a tombstone: it refers to no job and no checkpoint
    any more, so that these may go too; its lineage still names them, and its number is not given again.
    """

    __tablename__ = "versions"
    __table_args__ = (
        UniqueConstraint("owner", "model", "version"),
        Index(None, "checkpoint_id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(63))
    model: Mapped[str] = mapped_column(String(63))
    version: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    task: Mapped[str] = mapped_column(String(32))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    checkpoint_id: Mapped[str | None] = mapped_column(ForeignKey("checkpoints.id"))
    manifest_key: Mapped[str] = mapped_column(String(255))
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    signature: Mapped[dict[str, Any]]
    classes: Mapped[list[Any] | None]
    transforms: Mapped[list[Any]]
    metrics: Mapped[dict[str, Any]]
    evaluation: Mapped[dict[str, Any] | None]
    lineage: Mapped[dict[str, Any]]
    spec: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Alias(Base):
    __tablename__ = "aliases"

    owner: Mapped[str] = mapped_column(String(63), primary_key=True)
    model: Mapped[str] = mapped_column(String(63), primary_key=True)
    alias: Mapped[str] = mapped_column(String(63), primary_key=True)
    version: Mapped[int]
    updated_at: Mapped[datetime]


class AliasMove(Base):
    """One move of an alias: `kind` is set | rollback | delete. `seq` counts the moves of an alias from 1, and
    `from_version` is the `to_version` of the move before.

    `behind` is the move whose version a rollback goes back to from here: that before a `set`, and after a
    rollback the one further back, so that rollbacks walk. `key_id` and `key_name` are those of the API key;
    `required` is the requirement that held.
    """

    __tablename__ = "alias_moves"

    owner: Mapped[str] = mapped_column(String(63), primary_key=True)
    model: Mapped[str] = mapped_column(String(63), primary_key=True)
    alias: Mapped[str] = mapped_column(String(63), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    from_version: Mapped[int | None]
    to_version: Mapped[int | None]
    behind: Mapped[int | None]
    key_id: Mapped[str | None] = mapped_column(String(40))
    key_name: Mapped[str | None] = mapped_column(String(63))
    reason: Mapped[str | None] = mapped_column(String(500))
    required: Mapped[dict[str, Any] | None]
    at: Mapped[datetime]


class BatchPrediction(Base):
    """One version's answers to the rows of a dataset or an upload. Its lease is that of a job; it holds one
    slot of its worker.

    `version` is what the model's reference meant when it came. `results` are the keys, sizes and hashes of
    the two files, once it has succeeded. `is_cleared`: it has ended, and storage holds nothing else of it.
    """

    __tablename__ = "batch_predictions"
    __table_args__ = (
        Index(None, "state", "pool", "queued_at"),
        Index(None, "owner", "created_at"),
        Index(None, "owner", "state"),
        Index(None, "dataset_id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(63))
    state: Mapped[str] = mapped_column(String(16))
    wanted: Mapped[str] = mapped_column(String(16))
    revision: Mapped[int] = mapped_column(default=0)
    pool: Mapped[str] = mapped_column(String(16))
    worker_id: Mapped[str | None] = mapped_column(String(40))
    preempted_by: Mapped[str | None] = mapped_column(String(40))
    model: Mapped[str] = mapped_column(String(63))
    version: Mapped[int]
    version_id: Mapped[str] = mapped_column(String(40))
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"))
    split: Mapped[str | None] = mapped_column(String(63))
    upload_id: Mapped[str | None] = mapped_column(String(40))
    format: Mapped[str] = mapped_column(String(16))
    warnings: Mapped[list[Any]]
    fence: Mapped[int] = mapped_column(default=0)
    beat: Mapped[int] = mapped_column(default=0)
    attempt: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    progress: Mapped[dict[str, Any]]
    transitions: Mapped[list[Any]]
    results: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    is_cleared: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]
    queued_at: Mapped[datetime]
    not_before: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class PredictionPart(Base):
    """`rows` rows from `start` on with their answers or errors, in storage under `key`. Parts follow each
    other without a gap; they go once the batch prediction has ended."""

    __tablename__ = "prediction_parts"

    batch_id: Mapped[str] = mapped_column(
        ForeignKey("batch_predictions.id", ondelete="CASCADE"), primary_key=True
    )
    start: Mapped[int] = mapped_column(primary_key=True)
    rows: Mapped[int]
    errors: Mapped[int]
    key: Mapped[str] = mapped_column(String(255))
    size: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))


class Worker(Base):
    """A process that can take work. Rows whose beat stands still are removed by the sweep."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    pool: Mapped[str] = mapped_column(String(16))
    devices: Mapped[list[Any]]
    slots: Mapped[int]
    busy: Mapped[int] = mapped_column(default=0)
    torch: Mapped[str] = mapped_column(String(32))
    beat: Mapped[int] = mapped_column(default=0)
    started_at: Mapped[datetime]


class Webhook(Base):
    """Where an owner wants to be told of `events`. `state`: enabled | disabled. `secret` signs what is sent,
    so it is kept as it is, and shown once."""

    __tablename__ = "webhooks"
    __table_args__ = (Index(None, "owner", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(63))
    url: Mapped[str] = mapped_column(String(2048))
    events: Mapped[list[Any]]
    secret: Mapped[bytes] = mapped_column(LargeBinary(32))
    state: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]


class Delivery(Base):
    """One message to one webhook, written in the transaction of what it tells; `message_id` is the same for
    all webhooks that are told. `body` is what is sent, byte for byte, in every try.

    `state`: waiting -> sending (a service process claimed it) -> delivered | waiting | dead. `fence` rises
    with each claim, and every write about a try carries it.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        Index(None, "state", "next_at"),
        Index(None, "state", "finished_at"),
    )

    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"), primary_key=True)
    message_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(63))
    type: Mapped[str] = mapped_column(String(40))
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    fence: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    status: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(String(300))
    next_at: Mapped[datetime]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
