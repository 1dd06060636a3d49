"""Asking a model: `POST /v1/models/{name}/predict`."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from modelyard.specs.common import Problem


class PredictRequest(Struct, forbid_unknown_fields=True):
    """`instances` are raw values as in the dataset: nested lists for arrays and images
    (CHW, HW for one channel, 0..255), objects of column to value for tables."""

    instances: Annotated[list[Any], Meta(min_length=1, max_length=10_000)]
    top_k: Annotated[int, Meta(ge=1, le=1000)] = 1


class ScoredLabel(Struct, frozen=True):
    label: str
    index: int
    score: float


class Prediction(Struct, omit_defaults=True):
    """A classifier fills `label`, `index`, `score`, `top`; a multilabel model `labels` (those with a score of
    0.5 or more) and `top`; a regressor `value`; a row that could not be read only `error`."""

    label: str | UnsetType = UNSET
    index: int | UnsetType = UNSET
    score: float | UnsetType = UNSET
    labels: list[str] | UnsetType = UNSET
    top: list[ScoredLabel] | UnsetType = UNSET
    value: float | list[float] | UnsetType = UNSET
    error: Problem | UnsetType = UNSET


class PredictReply(Struct):
    """n instances in, n predictions out, in order."""

    model: str
    version: int
    predictions: list[Prediction]
