"""Ids: UUIDv7 (RFC 9562, sorted by time of creation) behind a prefix that tells what they name."""

from typing import NewType

import uuid_utils

DatasetId = NewType("DatasetId", str)
JobId = NewType("JobId", str)
CheckpointId = NewType("CheckpointId", str)
VersionId = NewType("VersionId", str)
WorkerId = NewType("WorkerId", str)
UploadId = NewType("UploadId", str)
BatchId = NewType("BatchId", str)
KeyId = NewType("KeyId", str)
AuditId = NewType("AuditId", str)
WebhookId = NewType("WebhookId", str)
MessageId = NewType("MessageId", str)


def _new(prefix: str) -> str:
    return f"{prefix}_{uuid_utils.uuid7().hex}"


def dataset_id() -> DatasetId:
    return DatasetId(_new("ds"))


def job_id() -> JobId:
    return JobId(_new("job"))


def checkpoint_id() -> CheckpointId:
    return CheckpointId(_new("ckpt"))


def version_id() -> VersionId:
    return VersionId(_new("ver"))


def worker_id() -> WorkerId:
    return WorkerId(_new("wrk"))


def upload_id() -> UploadId:
    return UploadId(_new("upl"))


def batch_id() -> BatchId:
    return BatchId(_new("bp"))


def key_id() -> KeyId:
    return KeyId(_new("key"))


def audit_id() -> AuditId:
    return AuditId(_new("aud"))


def webhook_id() -> WebhookId:
    return WebhookId(_new("wh"))


def message_id() -> MessageId:
    return MessageId(_new("msg"))
