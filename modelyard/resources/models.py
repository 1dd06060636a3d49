"""Models: a name with versions that predict, and aliases that name a version."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from modelyard.resources.bodies import ARROW, CSV, Source, form_of, media_type, read_source
from modelyard.resources.downloads import Downloading
from modelyard.specs import AliasMove, Method, Model, ModelVersion, PredictReply, Requirement, Unloaded
from modelyard.transport import calls
from modelyard.transport.calls import path
from modelyard.transport.resource import R, operation, streaming
from modelyard.transport.story import Call, Story, Stream

Require: TypeAlias = Mapping[str, Any] | Requirement

#: Two versions that have to be measured first keep the answer for so long, others before them too.
COMPARED_S = 120

#: So long, beyond the client's timeout, may a service take to explain what it answers.
EXPLAINING_S = 150


class Models(Downloading[R]):
    """`client.models`. A `model` to predict with is `name`, `name@alias` or `name@version`."""

    @streaming
    def list(self) -> Stream[Model]:
        """Every model, newest first."""
        yield from self._pages(calls.get("/v1/models"), Model)

    @operation
    def get(self, name: str) -> Story[Model]:
        """With its versions that are `loaded` in the service that answers."""
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
    def download(
        self, name: str, version: int, file: str | os.PathLike[str], format: str = "pt"
    ) -> Story[Path]:
        """Write the weights of a version to a file, as `checkpoints.download` does."""
        url = path("/v1/models/{}/versions/{}/weights", name, version)
        return (yield from self._download_weights(url, file, format))

    @operation
    def predict(
        self, model: str, instances: Iterable[Any], top_k: int = 1, explain: Method | None = None
    ) -> Story[PredictReply]:
        """One prediction for each instance, in order; one that could not be read holds an `error`.

        Instances are raw values as in the dataset: nested lists or arrays, or a mapping of column to
        value for a table. Without `@` the alias `production` answers, else the newest ready version.
        `explain` says what the answers rest on, for images and tables: see `Explanation`.
        """
        body = {"instances": _rows(instances), "top_k": top_k}
        if explain is not None:
            body["explain"] = explain
        call = calls.send_json("POST", path("/v1/models/{}/predict", model), body, is_repeatable=True)
        return (yield from self._fetch(replace(call, held_s=_held_s(explain)), PredictReply))

    @operation
    def predict_image(
        self, model: str, image: Source, top_k: int = 1, explain: Method | None = None
    ) -> Story[PredictReply]:
        """The prediction for one PNG, JPEG or WebP, sent as it is. Raises InvalidArgument for other bytes."""
        data = yield from read_source(image)
        return (yield from self._predict_body(model, media_type(data), data, top_k, explain))

    @operation
    def predict_images(
        self, model: str, images: Iterable[Source], top_k: int = 1, explain: Method | None = None
    ) -> Story[PredictReply]:
        """One prediction for each image, in order, from one request of at most 256 images and 32 MiB; one
        that could not be read holds an `error`."""
        files = []
        for image in images:
            files.append((yield from read_source(image)))
        kind, data = form_of(files)
        return (yield from self._predict_body(model, kind, data, top_k, explain))

    @operation
    def predict_csv(
        self, model: str, rows: Source, top_k: int = 1, explain: Method | None = None
    ) -> Story[PredictReply]:
        """One prediction for each line under the header of a CSV in UTF-8, a file or its bytes."""
        data = yield from read_source(rows)
        return (yield from self._predict_body(model, CSV, data, top_k, explain))

    @operation
    def predict_arrow(
        self, model: str, rows: Source, top_k: int = 1, explain: Method | None = None
    ) -> Story[PredictReply]:
        """One prediction for each row of an Arrow IPC stream, a file or its bytes, as
        `pyarrow.ipc.new_stream` writes it: a table's columns, or one column of images or arrays."""
        data = yield from read_source(rows)
        return (yield from self._predict_body(model, ARROW, data, top_k, explain))

    @operation
    def set_alias(
        self,
        model: str,
        alias: str,
        version: int,
        require: Require | None = None,
        reason: str | None = None,
    ) -> Story[Model]:
        """Let `alias` name `version`; the model as it then is.

        With `require={"metric": "val_accuracy", "min_delta": 0}` only where that version is better than the
        one that `alias` names by at least so much; Conflict says both numbers where it is not. That may take
        a minute, where both have to be measured on the same rows. `reason` goes into the history.
        """
        target = path("/v1/models/{}/aliases/{}", model, alias)
        wanted = {"require": require, "reason": reason}
        body = {"version": version, **{name: value for name, value in wanted.items() if value is not None}}
        call = calls.send_json("PUT", target, body, is_repeatable=True)
        held_s = COMPARED_S if require is not None else 0
        return (yield from self._fetch(replace(call, held_s=held_s), Model))

    @operation
    def delete_alias(self, model: str, alias: str) -> Story[None]:
        """Its history stays to be read."""
        yield from self._send(calls.delete(path("/v1/models/{}/aliases/{}", model, alias)))

    @operation
    def rollback(self, model: str, alias: str, reason: str | None = None) -> Story[Model]:
        """Let `alias` name the version that it named before, and with the next call the one before that; the
        model as it then is. Raises Conflict where there is none."""
        target = path("/v1/models/{}/aliases/{}/rollback", model, alias)
        body = {"reason": reason} if reason is not None else {}
        # A second one would go back further: it is sent once.
        return (yield from self._fetch(calls.send_json("POST", target, body, is_repeatable=False), Model))

    @streaming
    def alias_history(self, model: str, alias: str) -> Stream[AliasMove]:
        """Every move of an alias, newest first: who, when, why, from which version to which."""
        target = path("/v1/models/{}/aliases/{}/history", model, alias)
        yield from self._pages(calls.get(target), AliasMove)

    @operation
    def unload(self, name: str) -> Story[Unloaded]:
        """Take every version of a model out of the service's memory, and say how much that gave back. The
        next prediction loads what it needs again."""
        call = Call(method="POST", path=path("/v1/models/{}/unload", name), is_repeatable=True)
        return (yield from self._fetch(call, Unloaded))

    @operation
    def delete_version(self, model: str, version: int) -> Story[None]:
        """Its number is not given again. Raises Conflict while an alias names it or a job goes on from it."""
        yield from self._send(calls.delete(path("/v1/models/{}/versions/{}", model, version)))

    def _predict_body(
        self, model: str, kind: str, data: bytes, top_k: int, explain: Method | None
    ) -> Story[PredictReply]:
        call = Call(
            method="POST",
            path=path("/v1/models/{}/predict", model),
            params={"top_k": top_k, **({"explain": explain} if explain else {})},
            headers={"Content-Type": kind},
            content=data,
            held_s=_held_s(explain),
            is_repeatable=True,
        )
        return (yield from self._fetch(call, PredictReply))


def _rows(instances: Iterable[Any]) -> object:
    """An array goes as it is, to be written as nested lists; anything else that iterates as a list."""
    return instances if hasattr(instances, "tolist") else [*instances]


def _held_s(explain: Method | None) -> float:
    return 0 if explain is None else EXPLAINING_S
