"""Batch predictions: a version's answers to all rows of a dataset or a file, as one file."""

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeAlias

from modelyard.errors import BatchPredictionFailed, InvalidArgument, WaitTimeout
from modelyard.resources.downloads import Downloading
from modelyard.resources.following import PASSING, Outage
from modelyard.specs import BatchPrediction, BatchState
from modelyard.transport import calls
from modelyard.transport.calls import path
from modelyard.transport.resource import R, operation, streaming
from modelyard.transport.story import AsyncRunner, Call, Story, Stream, SyncRunner

OnBatchProgress: TypeAlias = Callable[[BatchPrediction], None]


class BatchPredictions(Downloading[R]):
    """`client.batch_predictions`."""

    @operation
    def submit(
        self,
        model: str,
        dataset: str | None = None,
        *,
        split: str | None = None,
        upload: str | None = None,
        format: str = "parquet",
        idempotency_key: str | None = None,
    ) -> Story["BatchHandleOf[R]"]:
        """Queue the answers of `model` (`name`, `name@alias` or `name@version`, as it is now) to all rows of
        a `dataset` (`name` or `name@version`), of one `split` of it, or of an `upload` of CSV, JSON lines or
        Parquet. `format` is `parquet`, `csv` or `jsonl`.

        Raises InvalidArgument unless exactly one of `dataset` and `upload` is given, Invalid where the model
        can't read such rows. An `idempotency_key` works as for a job.
        """
        if (dataset is None) == (upload is None):
            raise InvalidArgument("expected exactly one of dataset and upload")
        given = {"model": model, "dataset": dataset, "split": split, "upload": upload, "format": format}
        call = calls.send_json(
            "POST",
            "/v1/batch-predictions",
            {name: value for name, value in given.items() if value is not None},
            headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
            is_repeatable=True,
        )
        return BatchHandleOf(self._runner, (yield from self._fetch(call, BatchPrediction)))

    @operation
    def get(self, batch_id: str, wait_s: float | None = None) -> Story[BatchPrediction]:
        """With `wait_s` (at most 30) the answer is held until something changes."""
        return (yield from self._fetch(calls.held(_get(batch_id), wait_s), BatchPrediction))

    @operation
    def handle(self, batch_id: str) -> Story["BatchHandleOf[R]"]:
        """One that was submitted earlier, to wait for it or to fetch its files."""
        return BatchHandleOf(self._runner, (yield from self._fetch(_get(batch_id), BatchPrediction)))

    @streaming
    def list(self, state: str | None = None) -> Stream[BatchPrediction]:
        """Newest first; only those in `state`."""
        yield from self._pages(calls.get("/v1/batch-predictions", state=state), BatchPrediction)

    @operation
    def cancel(self, batch_id: str) -> Story[BatchPrediction]:
        """As it then is: one that runs ends in `cancelled` soon after."""
        return (yield from self._fetch(_cancel(batch_id), BatchPrediction))

    @operation
    def download(self, batch_id: str, file: str | os.PathLike[str]) -> Story[Path]:
        """Write the answers to `file`, which appears whole or not at all. Raises Conflict before it has
        succeeded, UnexpectedReply where the bytes came damaged; OSError."""
        return (yield from self._download(_file(batch_id, "output"), file))

    @operation
    def download_errors(self, batch_id: str, file: str | os.PathLike[str]) -> Story[Path]:
        """The same of the rows that have no answer: their number, a code, a message."""
        return (yield from self._download(_file(batch_id, "errors"), file))


class BatchHandleOf(Downloading[R], Generic[R]):
    """One batch prediction: `id`, and `batch` as it was last seen."""

    def __init__(self, runner: R, batch: BatchPrediction) -> None:
        super().__init__(runner)
        self.batch = batch

    @property
    def id(self) -> str:
        return self.batch.id

    def __repr__(self) -> str:
        return f"<batch prediction {self.id} {self.batch.state}>"

    @operation
    def refresh(self) -> Story[BatchPrediction]:
        """As it is now."""
        self.batch = yield from self._fetch(_get(self.id), BatchPrediction)
        return self.batch

    @operation
    def wait(
        self,
        timeout_s: float | None = None,
        raise_on_failure: bool = True,
        on_progress: OnBatchProgress | None = None,
    ) -> Story[BatchPrediction]:
        """Returns it once it has ended; a cancelled one is no error. `on_progress` is told how it stands
        whenever that changes.

        Raises BatchPredictionFailed where it failed, unless told not to; WaitTimeout after `timeout_s`, and
        it goes on. A service that restarts in between is waited for, a minute at most.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        outage = Outage()
        wait_s: float = 0
        while True:
            asked_s = time.monotonic()
            try:
                call = calls.held(_get(self.id), wait_s)
                self.batch = yield from calls.fetch(call, BatchPrediction, max_retries=0)
            except PASSING as error:
                yield from outage.pause(error)
            else:
                outage.is_over()
                if on_progress is not None:
                    on_progress(self.batch)
                if self.batch.terminal:
                    break
                yield from calls.breathe(asked_s, time.monotonic())
            wait_s = calls.LONG_POLL_S
            if deadline_s is not None:
                wait_s = min(wait_s, deadline_s - time.monotonic())
                if wait_s <= 0:
                    raise WaitTimeout(
                        f"batch prediction {self.id} has not ended within {timeout_s:g} s; it goes on"
                    )
        if raise_on_failure and self.batch.state is BatchState.FAILED:
            raise BatchPredictionFailed(self.batch)
        return self.batch

    @operation
    def cancel(self) -> Story[BatchPrediction]:
        """As it then is: one that runs ends in `cancelled` soon after."""
        self.batch = yield from self._fetch(_cancel(self.id), BatchPrediction)
        return self.batch

    @operation
    def download(self, file: str | os.PathLike[str]) -> Story[Path]:
        """Write the answers to `file`; see `BatchPredictions.download`."""
        return (yield from self._download(_file(self.id, "output"), file))

    @operation
    def download_errors(self, file: str | os.PathLike[str]) -> Story[Path]:
        """Write the rows that have no answer to `file`."""
        return (yield from self._download(_file(self.id, "errors"), file))


BatchHandle: TypeAlias = BatchHandleOf[SyncRunner]
AsyncBatchHandle: TypeAlias = BatchHandleOf[AsyncRunner]


def _get(batch_id: str) -> Call:
    return calls.get(path("/v1/batch-predictions/{}", batch_id))


def _cancel(batch_id: str) -> Call:
    return Call(method="POST", path=path("/v1/batch-predictions/{}/cancel", batch_id))


def _file(batch_id: str, which: str) -> Call:
    return calls.get(path("/v1/batch-predictions/{}/{}", batch_id, which))
