"""Models: a name with versions that predict, and aliases that name a version."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

from modelyard.errors import InvalidArgument
from modelyard.specs import AliasUpdate, Model, ModelVersion, PredictReply
from modelyard.transport import calls
from modelyard.transport.calls import path
from modelyard.transport.resource import R, Resource, operation, streaming
from modelyard.transport.story import Call, InThread, Story, Stream

Image: TypeAlias = str | os.PathLike[str] | bytes


class Models(Resource[R]):
    """`client.models`. A `model` to predict with is `name`, `name@alias` or `name@version`."""

    @streaming
    def list(self) -> Stream[Model]:
        """Every model, newest first."""
        yield from self._pages(calls.get("/v1/models"), Model)

    @operation
    def get(self, name: str) -> Story[Model]:
        return (yield from self._fetch(calls.get(path("/v1/models/{}", name)), Model))

    @streaming
    def versions(self, name: str) -> Stream[ModelVersion]:
        """Every version of a model, newest first."""
        yield from self._pages(calls.get(path("/v1/models/{}/versions", name)), ModelVersion)

    @operation
    def version(self, name: str, version: int) -> Story[ModelVersion]:
        return (
            yield from self._fetch(calls.get(path("/v1/models/{}/versions/{}", name, version)), ModelVersion)
        )

    @operation
    def predict(self, model: str, instances: Iterable[Any], top_k: int = 1) -> Story[PredictReply]:
        """One prediction for each instance, in order; one that could not be read holds an `error`.

        Instances are raw values as in the dataset: nested lists or arrays, or a mapping of column to
        value for a table. Without `@` the alias `production` answers, else the newest ready version.
        """
        body = {"instances": _rows(instances), "top_k": top_k}
        call = calls.send_json("POST", path("/v1/models/{}/predict", model), body, is_repeatable=True)
        return (yield from self._fetch(call, PredictReply))

    @operation
    def predict_image(self, model: str, image: Image, top_k: int = 1) -> Story[PredictReply]:
        """The prediction for one PNG, JPEG or WebP, sent as it is. Raises InvalidArgument for other bytes."""
        data: bytes = image if isinstance(image, bytes) else (yield InThread(Path(image).read_bytes))
        call = Call(
            method="POST",
            path=path("/v1/models/{}/predict", model),
            params={"top_k": top_k},
            headers={"Content-Type": media_type(data)},
            content=data,
            is_repeatable=True,
        )
        return (yield from self._fetch(call, PredictReply))

    @operation
    def set_alias(self, model: str, alias: str, version: int) -> Story[Model]:
        """Let `alias` name `version`; the model as it then is."""
        target = path("/v1/models/{}/aliases/{}", model, alias)
        call = calls.send_json("PUT", target, AliasUpdate(version=version), is_repeatable=True)
        return (yield from self._fetch(call, Model))

    @operation
    def delete_alias(self, model: str, alias: str) -> Story[None]:
        yield from self._send(calls.delete(path("/v1/models/{}/aliases/{}", model, alias)))


def media_type(data: bytes) -> str:
    """By the first bytes, as a file's name may lie."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    raise InvalidArgument(f"expected the bytes of a PNG, JPEG or WebP, got {data[:12]!r}…")


def _rows(instances: Iterable[Any]) -> object:
    """An array goes as it is, to be written as nested lists; anything else that iterates as a list."""
    return instances if hasattr(instances, "tolist") else [*instances]
