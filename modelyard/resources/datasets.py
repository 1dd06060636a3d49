"""Datasets: a name with immutable versions."""

import time
from typing import Any
from urllib.parse import quote

import msgspec

from modelyard import specs
from modelyard.errors import ApiError, DatasetFailed, TransportError
from modelyard.resources import pieces
from modelyard.resources.pieces import OnBegin
from modelyard.resources.uploads import OnProgress, Source, Upload, open_upload
from modelyard.specs import Dataset, DatasetSource, DatasetState, DatasetUpload, Samples, TorchvisionSource
from modelyard.transport import calls
from modelyard.transport.calls import path
from modelyard.transport.resource import R, Resource, operation, streaming
from modelyard.transport.story import Call, InThread, Story, Stream

#: From here on a file goes in pieces: what a broken connection costs is then worth a few requests more.
IN_PIECES_BYTES = 64 * 1024 * 1024


class Datasets(Resource[R]):
    """`client.datasets`."""

    @operation
    def push(
        self,
        name: str,
        source: Source,
        format: str = "auto",
        options: dict[str, Any] | None = None,
        wait: bool = True,
        on_progress: OnProgress | None = None,
        on_begin: OnBegin | None = None,
        resume: str | None = None,
    ) -> Story[Dataset]:
        """Upload a new version of `name`; the same bytes again give the version that is there.

        A file is streamed from disk; a folder is zipped to a temporary file first. From 64 MiB on it goes in
        pieces, and a broken connection is taken up again where it broke; `on_begin` is then told the upload,
        and `resume` is the id of one that was interrupted. With `wait`, returns when the rows can be trained
        on. Raises DatasetFailed where they cannot be read; OSError.
        """
        upload: Upload = yield InThread(lambda: open_upload(source, on_progress))
        try:
            if resume is not None or (upload.size_bytes or 0) >= IN_PIECES_BYTES:
                sent = yield from self._sent(upload, on_progress, on_begin, resume)
                asked = DatasetUpload(name, sent.id, format, options or {})
                call = calls.send_json("POST", "/v1/datasets", asked, is_repeatable=True)
                dataset = yield from self._fetch(call, Dataset)
                yield from self._forget(sent)
            else:
                dataset = yield from self._fetch(_put(name, upload, format, options), Dataset)
        finally:
            upload.close()
        if wait:
            return (yield from self._ingested(dataset))
        return dataset

    @operation
    def fetch(
        self,
        name: str,
        torchvision: str,
        options: dict[str, str | int] | None = None,
        wait: bool = True,
    ) -> Story[Dataset]:
        """Have a worker fetch one of torchvision's datasets, as `FashionMNIST`, as a new version of `name`;
        the same again gives the version that is there. `options` are arguments of its class.

        With `wait`, returns when the rows can be trained on. Raises DatasetFailed where they cannot be
        fetched or read.
        """
        call = calls.send_json(
            "POST",
            "/v1/datasets",
            DatasetSource(name, TorchvisionSource(torchvision, options or {})),
            is_repeatable=True,
        )
        dataset = yield from self._fetch(call, Dataset)
        return (yield from self._ingested(dataset)) if wait else dataset

    @operation
    def get(self, name: str, version: int | None = None, wait_s: float | None = None) -> Story[Dataset]:
        """The newest version, or the one named. With `wait_s` (at most 30) the answer is held until the
        dataset is no longer `processing`."""
        return (yield from self._get(name, version, wait_s))

    @operation
    def wait(self, name: str, version: int) -> Story[Dataset]:
        """Returns the version once it is `ready`. Raises DatasetFailed where its rows cannot be read."""
        return (yield from self._ingested((yield from self._get(name, version, None))))

    @streaming
    def list(self) -> Stream[Dataset]:
        """The newest version of every dataset, newest first."""
        yield from self._pages(calls.get("/v1/datasets"), Dataset)

    @streaming
    def versions(self, name: str) -> Stream[Dataset]:
        """Every version of a dataset, newest first."""
        yield from self._pages(calls.get(path("/v1/datasets/{}/versions", name)), Dataset)

    @operation
    def samples(self, name: str, split: str = "train", limit: int = 9) -> Story[Samples]:
        """The first rows of a split of the newest ready version."""
        call = calls.get(path("/v1/datasets/{}/samples", name), split=split, limit=limit)
        return (yield from self._fetch(call, Samples))

    @operation
    def preview(self, name: str, rows: int = 3, cols: int = 3) -> Story[bytes]:
        """A PNG: a grid of images with their labels."""
        reply = yield from self._send(
            calls.get(path("/v1/datasets/{}/preview.png", name), rows=rows, cols=cols)
        )
        return reply.content

    @operation
    def delete(self, name: str, version: int) -> Story[None]:
        """Gives the bytes back. Raises Conflict while a job or a model's version needs them."""
        yield from self._send(calls.delete(path("/v1/datasets/{}/versions/{}", name, version)))

    def _sent(
        self, file: Upload, on_progress: OnProgress | None, on_begin: OnBegin | None, resume: str | None
    ) -> Story[specs.Upload]:
        retries = self._runner.max_retries
        if resume is not None:
            return (yield from pieces.go_on(resume, file, on_progress, retries))
        return (yield from pieces.begin(file, on_progress, on_begin, retries))

    def _forget(self, sent: specs.Upload) -> Story[None]:
        """The dataset has a file of its own, and what is not deleted expires."""
        try:
            yield from self._send(calls.delete(path("/v1/uploads/{}", sent.id)))
        except (ApiError, TransportError):
            return

    def _get(self, name: str, version: int | None, wait_s: float | None) -> Story[Dataset]:
        if version is None:
            target = path("/v1/datasets/{}", name)
        else:
            target = path("/v1/datasets/{}/versions/{}", name, version)
        return (yield from self._fetch(calls.held(calls.get(target), wait_s), Dataset))

    def _ingested(self, dataset: Dataset) -> Story[Dataset]:
        while dataset.state is DatasetState.PROCESSING:
            asked_s = time.monotonic()
            dataset = yield from self._get(dataset.name, dataset.version, calls.LONG_POLL_S)
            yield from calls.breathe(asked_s, time.monotonic())
        if dataset.state is DatasetState.FAILED:
            raise DatasetFailed(dataset)
        return dataset


def _put(name: str, upload: Upload, format: str, options: dict[str, Any] | None) -> Call:
    params = {"format": format}
    if options is not None:
        params["options"] = msgspec.json.encode(options).decode()
    return Call(
        method="PUT",
        path=path("/v1/datasets/{}", name),
        params=params,
        headers=_headers(upload),
        content=upload,
        is_repeatable=True,
    )


def _headers(upload: Upload) -> dict[str, str]:
    """With the file's name, where it has one, which the service shows and guesses the format by."""
    headers = {"Content-Type": "application/octet-stream"}
    if upload.label is not None:
        headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(upload.label)}"
    return headers
