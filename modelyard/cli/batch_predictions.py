"""`modelyard predict-batch` and `modelyard batch-predictions`: answers to many rows, as one file."""

from itertools import islice
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from modelyard.cli.datasets import upload_bar
from modelyard.cli.session import AsJson, Count, Session, Shared, number
from modelyard.client import Client
from modelyard.errors import BatchPredictionFailed, InvalidArgument
from modelyard.resources.batch_predictions import BatchHandle
from modelyard.specs import BatchPrediction, BatchState

SUCCEEDED, FAILED, INTERRUPTED = 0, 1, 130

#: The formats by the ends of their files' names.
FORMATS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}

Output = Annotated[Path | None, Parameter(name=("--output", "-o"))]
Errors = Annotated[Path | None, Parameter(name="--errors")]

app = App(name="batch-predictions", help="Answers to all rows of a dataset or a file.")


def predict_batch(
    model: str,
    file: Path | None = None,
    *,
    dataset: str | None = None,
    split: str | None = None,
    format: str | None = None,
    output: Output = None,
    errors: Errors = None,
    wait: bool = True,
    session: Shared,
) -> int:
    """Ask a model about all rows of a dataset or a file, and write the answers to a file.

    The exit status is 1 where it failed or was cancelled; rows without an answer are told and no failure.

    Args:
        model: name, name@alias or name@version
        file: rows as CSV, JSON lines or Parquet, for a model of tables or text
        dataset: name or name@version
        split: only this split of the dataset
        format: parquet, csv or jsonl; else as the output is called, else parquet
        output: the file to write; else predictions.parquet, .csv or .jsonl
        errors: write the rows without an answer here
        wait: wait and write; else only print the id
    """
    if (file is None) == (dataset is None):
        raise InvalidArgument("expected either a file of rows or --dataset")
    chosen = format or FORMATS.get(output.suffix.lower() if output is not None else "", "parquet")
    with session.client() as client:
        upload = _upload(client, file) if file is not None else None
        batch = client.batch_predictions.submit(model, dataset, split=split, upload=upload, format=chosen)
        if not wait:
            session.say(batch.id)
            return SUCCEEDED
        return _follow(session, batch, output or Path(f"predictions.{chosen}"), errors)


@app.command(name="list")
def list_(
    *, state: BatchState | None = None, limit: Count = 50, as_json: AsJson = False, session: Shared
) -> None:
    """Every batch prediction, newest first.

    Args:
        state: only those in this state
        limit: show so many at most
    """
    with session.client() as client:
        found = list(islice(client.batch_predictions.list(state), limit))
    if as_json:
        session.show_json(found)
        return
    session.show_table(
        ("id", "state", "model", "rows", "done", "created"),
        (
            (b.id, b.state, f"{b.model}@{b.version}", _rows(b), f"{b.progress.fraction:.0%}", b.created_at)
            for b in found
        ),
    )


@app.command
def show(batch: str, *, as_json: AsJson = False, session: Shared) -> None:
    """How one stands.

    Args:
        batch: its id
    """
    with session.client() as client:
        _show(session, client.batch_predictions.get(batch), as_json)


@app.command
def download(batch: str, *, output: Output = None, errors: Errors = None, session: Shared) -> int:
    """Wait until one has ended, and write its answers to a file.

    Args:
        batch: its id
        output: the file to write; else predictions.parquet, .csv or .jsonl
        errors: write the rows without an answer here
    """
    with session.client() as client:
        handle = client.batch_predictions.handle(batch)
        return _follow(session, handle, output or Path(f"predictions.{handle.batch.format}"), errors)


@app.command
def cancel(batch: str, *, session: Shared) -> None:
    """Stop one; what it has answered goes.

    Args:
        batch: its id
    """
    with session.client() as client:
        found = client.batch_predictions.cancel(batch)
    session.say(f"{batch} is {found.state if found.terminal else 'being cancelled'}")


def _upload(client: Client, file: Path) -> str:
    with upload_bar() as bar:
        task = bar.add_task(f"uploading {file.name}", total=None)
        return client.uploads.create(
            file, on_progress=lambda sent, total: bar.update(task, completed=sent, total=total)
        ).id


def _follow(session: Session, handle: BatchHandle, output: Path, errors: Path | None) -> int:
    try:
        batch = _wait(handle)
    except BatchPredictionFailed as failed:
        session.remark(f"modelyard: {failed}")
        return FAILED
    except KeyboardInterrupt:
        session.remark(
            f"left; {handle.id} goes on: `modelyard batch-predictions download {handle.id}` waits again, "
            f"`modelyard batch-predictions cancel {handle.id}` stops it"
        )
        return INTERRUPTED
    if batch.output is None or batch.errors is None:
        session.remark(f"modelyard: batch prediction {batch.id} is {batch.state}")
        return FAILED
    session.say(
        f"{batch.output.rows} rows answered by {batch.model}@{batch.version}: {handle.download(output)}"
    )
    if errors is not None:
        session.say(f"{batch.errors.rows} rows without an answer: {handle.download_errors(errors)}")
    elif batch.errors.rows:
        session.remark(
            f"{batch.errors.rows} rows have no answer: "
            f"`modelyard batch-predictions download {batch.id} --errors FILE` says why"
        )
    return SUCCEEDED


def _wait(handle: BatchHandle) -> BatchPrediction:
    """With a bar on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(handle.batch.state, total=1.0)

        def told(batch: BatchPrediction) -> None:
            done = batch.progress
            words = f"{batch.state} {done.rows_done:,} of {_rows(batch)} rows"
            if done.rows_per_second:
                words += f", {done.rows_per_second:,.0f}/s"
            bar.update(task, description=words, completed=done.fraction)

        return handle.wait(on_progress=told)


def _show(session: Session, batch: BatchPrediction, as_json: bool) -> None:
    if as_json:
        session.show_json(batch)
        return
    done, dataset = batch.progress, batch.dataset
    session.show_fields(
        (
            ("batch prediction", batch.id),
            ("state", batch.state),
            ("model", f"{batch.model}@{batch.version}"),
            ("dataset", f"{dataset.name}@{dataset.version}" if dataset else None),
            ("split", dataset.split if dataset else None),
            ("upload", batch.upload),
            ("rows", f"{done.rows_done} of {_rows(batch)}, {done.errors} without an answer"),
            ("rows a second", number(done.rows_per_second) if done.rows_per_second else None),
            ("output", f"{batch.output.size} bytes of {batch.format}" if batch.output else None),
            ("error", f"{batch.error.code}: {batch.error.message}" if batch.error else None),
            ("warnings", batch.warnings),
            ("created", batch.created_at),
            ("started", batch.started_at),
            ("finished", batch.finished_at),
        )
    )


def _rows(batch: BatchPrediction) -> str:
    return "?" if batch.progress.rows is None else f"{batch.progress.rows:,}"
