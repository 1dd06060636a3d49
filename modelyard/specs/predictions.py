"""Asking a model: `POST /v1/models/{name}/predict`."""

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

from modelyard.specs.common import Problem

#: How many rows one request may hold.
MAX_INSTANCES = 10_000

#: How an answer is explained: by the gradient at the row, or by the mean gradient on the way to it from a
#: black image, or from a row of zeros.
Method: TypeAlias = Literal["saliency", "integrated_gradients"]


class PredictRequest(Struct, forbid_unknown_fields=True):
    """`instances` are raw values as in the dataset: nested lists for arrays and images
    (CHW, HW for one channel, 0..255), objects of column to value for tables. `explain` is for at most 16."""

    instances: Annotated[list[Any], Meta(min_length=1, max_length=MAX_INSTANCES)]
    top_k: Annotated[int, Meta(ge=1, le=1000)] = 1
    explain: Method | None = None


class ScoredLabel(Struct, frozen=True):
    label: str
    index: int
    score: float


class Explanation(Struct, frozen=True, omit_defaults=True):
    """What the answer rests on: for an image a `heat_map`, a PNG in base64 of the size that the net sees; for
    a table a number for each of its `columns`. `index` is the class or label that is explained; a regressor
    has none."""

    method: str
    index: int | UnsetType = UNSET
    heat_map: str | UnsetType = UNSET
    columns: dict[str, float] | UnsetType = UNSET


class Prediction(Struct, omit_defaults=True):
    """A classifier fills `label`, `index`, `score`, `top`; a multilabel model `labels` (those with a score of
    0.5 or more) and `top`; a regressor `value`; a row that could not be read only `error`. `explanation` is
    there where one was asked for."""

    label: str | UnsetType = UNSET
    index: int | UnsetType = UNSET
    score: float | UnsetType = UNSET
    labels: list[str] | UnsetType = UNSET
    top: list[ScoredLabel] | UnsetType = UNSET
    value: float | list[float] | UnsetType = UNSET
    error: Problem | UnsetType = UNSET
    explanation: Explanation | UnsetType = UNSET


class PredictReply(Struct):
    """n instances in, n predictions out, in order."""

    model: str
    version: int
    predictions: list[Prediction]
