"""Path and query parameters that several resources share, with their bounds."""

from typing import Annotated

from litestar.params import HeaderParameter, PathParameter, QueryParameter

from modelyard.specs import WeightsFormat

NamePath = Annotated[str, PathParameter(description="a dataset's or model's name")]
JobPath = Annotated[str, PathParameter(description="a job's id")]
CheckpointPath = Annotated[str, PathParameter(description="a checkpoint's id")]
AliasPath = Annotated[str, PathParameter(description="a name for a version, such as `production`")]
VersionPath = Annotated[int, PathParameter(ge=1, le=2**31 - 1, description="a version's number")]

FormatQuery = Annotated[
    WeightsFormat, QueryParameter(name="format", description="of the file; see docs/exporting.md")
]

Limit = Annotated[int, QueryParameter(ge=1, le=200, description="rows of a page")]
#: A cursor is the id of the last row seen: a made-up one would give the first page again, or an empty one.
After = Annotated[
    str | None,
    QueryParameter(pattern=r"^[a-z]+_[0-9a-f]+$", max_length=40, description="the `next` of the page before"),
]
#: Metrics have no ids: their cursor is a step and a name.
AfterMetric = Annotated[
    str | None, QueryParameter(max_length=200, description="the `next` of the page before")
]
Wait = Annotated[
    float,
    QueryParameter(ge=0, le=60, description="hold the reply for a change, so many seconds at most"),
]

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key", min_length=1, max_length=255, description="the first answer is kept 24 h"
    ),
]

DEFAULT_LIMIT = 20
