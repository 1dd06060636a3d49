"""A resumable upload: bytes that come in pieces, for a dataset or for weights."""

from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from modelyard.specs.common import Name

UploadId = Annotated[str, Meta(pattern=r"^upl_[0-9a-f]{32}$")]


class UploadRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """`length` in bytes; `filename` is a label."""

    filename: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]
    length: Annotated[int, Meta(ge=1)]


class Upload(Struct, frozen=True):
    """`offset` bytes of `length` have come. What has come is kept until `expires_at`, which moves on with
    each piece, and as long as a job that has not ended reads it."""

    id: str
    offset: int
    length: int
    expires_at: datetime


class DatasetUpload(Struct, forbid_unknown_fields=True, frozen=True):
    """A dataset of the bytes of a complete upload."""

    name: Name
    upload: UploadId
    format: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)
