"""`modelyard datasets`: upload, look at and delete what is trained on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from modelyard.cli.files import write_whole
from modelyard.cli.session import AsJson, Count, Session, Shared
from modelyard.errors import InvalidArgument, ModelyardError
from modelyard.specs import Dataset, DatasetState, Upload

app = App(name="datasets", help="Upload, look at and delete what is trained on.")


@app.command
def push(
    name: str,
    file: Path,
    *,
    format: str = "auto",
    wait: bool = True,
    resume: str | None = None,
    as_json: AsJson = False,
    session: Shared,
) -> None:
    """Upload a file, or a folder, as a new version of a dataset. Large ones go in pieces.

    Args:
        name: the dataset's name
        file: an archive, a table, an .npz, or a folder, which is zipped first
        format: auto, image_folder, image_csv, table, arrays, idx or text
        wait: return when the rows can be trained on, and fail where they cannot be read
        resume: the id of an upload of the same file that was interrupted
    """
    with session.client() as client:
        with upload_bar() as bar, told_how_to_resume(session) as on_begin:
            task = bar.add_task(f"uploading {name}", total=None)
            dataset = client.datasets.push(
                name,
                file,
                format=format,
                wait=False,
                on_progress=lambda sent, total: bar.update(task, completed=sent, total=total),
                on_begin=on_begin,
                resume=resume,
            )
        if wait and dataset.state is DatasetState.PROCESSING:
            session.remark(f"{name}@{dataset.version} is uploaded; reading its rows")
        if wait:
            dataset = client.datasets.wait(dataset.name, dataset.version)
    _show(session, dataset, as_json)


@app.command
def fetch(
    name: str,
    *,
    torchvision: str,
    option: tuple[str, ...] = (),
    wait: bool = True,
    as_json: AsJson = False,
    session: Shared,
) -> None:
    """Have a worker fetch one of torchvision's datasets as a new version of a dataset.

    Args:
        name: the dataset's name
        torchvision: the class, as FashionMNIST or CIFAR10
        option: an argument of the class, as split=letters; several times
        wait: return when the rows can be trained on, and fail where they cannot be fetched or read
    """
    with session.client() as client:
        dataset = client.datasets.fetch(name, torchvision, _options(option), wait=False)
        if wait and dataset.state is DatasetState.PROCESSING:
            session.remark(f"{name}@{dataset.version} is being fetched")
        if wait:
            dataset = client.datasets.wait(dataset.name, dataset.version)
    _show(session, dataset, as_json)


@app.command(name="list")
def list_(*, limit: Count = 50, as_json: AsJson = False, session: Shared) -> None:
    """The newest version of every dataset.

    Args:
        limit: show so many at most
    """
    with session.client() as client:
        found = list(islice(client.datasets.list(), limit))
    if as_json:
        session.show_json(found)
        return
    session.show_table(
        ("name", "version", "state", "format", "rows", "bytes", "created"),
        ((d.name, d.version, d.state, d.format, d.num_samples, d.bytes, d.created_at) for d in found),
    )


@app.command
def show(name: str, *, version: int | None = None, as_json: AsJson = False, session: Shared) -> None:
    """One dataset: its splits, classes and columns.

    Args:
        name: the dataset's name
        version: the newest, where it is left out
    """
    with session.client() as client:
        _show(session, client.datasets.get(name, version), as_json)


@app.command
def samples(
    name: str, *, split: str = "train", limit: Count = 9, as_json: AsJson = False, session: Shared
) -> None:
    """The first rows of a split.

    Args:
        name: the dataset's name
        split: train, val or test
        limit: so many rows
    """
    with session.client() as client:
        found = client.datasets.samples(name, split, limit)
    if as_json:
        session.show_json(found)
        return
    columns = list(found.items[0].values) if found.items else []
    session.show_table(
        ("row", *columns),
        ((s.index, *(_short(s.values.get(column)) for column in columns)) for s in found.items),
    )


@app.command
def preview(
    name: str,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"))],
    rows: int = 3,
    cols: int = 3,
    session: Shared,
) -> None:
    """A grid of images with their labels, as a PNG.

    Args:
        name: the dataset's name
        output: the file to write
        rows: images down
        cols: images across
    """
    with session.client() as client:
        write_whole(output, client.datasets.preview(name, rows, cols))
    session.say(str(output))


@app.command
def delete(name: str, version: int, *, session: Shared) -> None:
    """Give the bytes of one version back.

    Args:
        name: the dataset's name
        version: the version to delete
    """
    with session.client() as client:
        client.datasets.delete(name, version)
    session.say(f"deleted {name}@{version}")


def _options(pairs: tuple[str, ...]) -> dict[str, str | int]:
    """`name=value`; a whole number is one."""
    found: dict[str, str | int] = {}
    for pair in pairs:
        name, mark, value = pair.partition("=")
        if not mark or not name:
            raise InvalidArgument(f"expected an option as name=value, got {pair!r}")
        found[name] = int(value) if value.isascii() and value.isdigit() else value
    return found


def _show(session: Session, dataset: Dataset, as_json: bool) -> None:
    if as_json:
        session.show_json(dataset)
        return
    session.show_fields(
        (
            ("dataset", f"{dataset.name}@{dataset.version}"),
            ("id", dataset.id),
            ("state", dataset.state),
            ("format", dataset.format),
            ("source", dataset.source),
            ("bytes", dataset.bytes),
            ("sha256", dataset.sha256),
            ("splits", dict(dataset.splits)),
            ("classes", dataset.classes),
            ("features", {name: f"{f.dtype} {f.shape}" for name, f in dataset.features.items()}),
            ("error", dataset.error.detail if dataset.error else None),
            ("created", dataset.created_at),
        )
    )


def _short(value: object) -> object:
    """Pixels fill screens; say that they are there."""
    return "[…]" if isinstance(value, list) and value and isinstance(value[0], list) else value


@contextmanager
def told_how_to_resume(session: Session) -> Iterator[Callable[[Upload], None]]:
    """What an upload that was begun is given to; where the block fails its id is told."""
    begun: list[Upload] = []
    try:
        yield begun.append
    except (ModelyardError, OSError, KeyboardInterrupt):
        for upload in begun:
            session.remark(f"what has come is kept for a day; go on with --resume {upload.id}")
        raise


def upload_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not Console(stderr=True).is_terminal,
    )
