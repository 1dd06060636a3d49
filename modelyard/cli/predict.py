"""`modelyard predict`: ask a model about images, or about rows in a file of JSON, CSV or Arrow."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from msgspec import UNSET

from modelyard.cli.files import STDIN, read_value, write_whole
from modelyard.cli.session import AsJson, Session, Shared, number
from modelyard.client import Client
from modelyard.errors import InvalidArgument, describe
from modelyard.specs import Method, Prediction, PredictReply

#: Images that go into one request: well below what the service takes, and as many as it explains.
MAX_FILES = 64
MAX_EXPLAINED = 16
MAX_FILES_BYTES = 16 * 1024 * 1024

CSV = (".csv", ".tsv")
ARROW = (".arrow", ".arrows")


def predict(
    model: str,
    files: Annotated[list[str], Parameter(allow_leading_hyphen=True)],
    *,
    top_k: int = 1,
    explain: Method | None = None,
    as_json: AsJson = False,
    session: Shared,
) -> int:
    """Ask a model. The exit status is 1 where a row could not be read.

    Args:
        model: name, name@alias or name@version
        files: images; or one file of rows, .json (or - for standard input), .csv or .arrow (a stream)
        top_k: name the k most likely classes
        explain: of at most 16 rows, what each column of a table says for the answer; of images a heat map,
            written beside each as NAME.METHOD.png
    """
    with session.client() as client:
        if any(_holds_rows(file) for file in files):
            if len(files) > 1:
                raise InvalidArgument(
                    "expected images, or one file of rows or -, not several of them together"
                )
            reply = _predict_rows(client, model, files[0], top_k, explain)
            names = [f"[{index}]" for index in range(len(reply.predictions))]
        else:
            reply, names = _predict_images(client, model, files, top_k, explain), files
            _write_heat_maps(reply, files)
    if as_json:
        session.show_json(reply)
    else:
        _show(session, reply, names)
    return 1 if any(prediction.error is not UNSET for prediction in reply.predictions) else 0


def _holds_rows(file: str) -> bool:
    return file == STDIN or file.lower().endswith((".json", *CSV, *ARROW))


def _predict_rows(client: Client, model: str, file: str, top_k: int, explain: Method | None) -> PredictReply:
    if file.lower().endswith(CSV):
        return client.models.predict_csv(model, file, top_k, explain)
    if file.lower().endswith(ARROW):
        return client.models.predict_arrow(model, file, top_k, explain)
    return client.models.predict(model, _instances(file), top_k, explain)


def _predict_images(
    client: Client, model: str, files: list[str], top_k: int, explain: Method | None
) -> PredictReply:
    """One reply of all. The version that answers the first images answers all: an alias may move."""
    if len(files) == 1:
        return client.models.predict_image(model, files[0], top_k, explain)
    replies: list[PredictReply] = []
    for few in _batches(files, MAX_FILES if explain is None else MAX_EXPLAINED):
        pinned = f"{replies[0].model}@{replies[0].version}" if replies else model
        replies.append(client.models.predict_images(pinned, few, top_k, explain))
    predictions = [prediction for reply in replies for prediction in reply.predictions]
    return PredictReply(model=replies[0].model, version=replies[0].version, predictions=predictions)


def _batches(files: list[str], at_most: int) -> Iterator[list[str]]:
    """Each of at least one file. Raises OSError."""
    few: list[str] = []
    size_bytes = 0
    for file in files:
        more_bytes = Path(file).stat().st_size
        if few and (len(few) == at_most or size_bytes + more_bytes > MAX_FILES_BYTES):
            yield few
            few, size_bytes = [], 0
        few.append(file)
        size_bytes += more_bytes
    yield few


def _write_heat_maps(reply: PredictReply, files: list[str]) -> None:
    for file, prediction in zip(files, reply.predictions, strict=True):
        explanation = prediction.explanation
        if explanation is not UNSET and explanation.heat_map is not UNSET:
            target = Path(f"{file}.{explanation.method}.png")
            write_whole(target, base64.b64decode(explanation.heat_map))


def _instances(file: str) -> list[Any]:
    """The file holds the list itself, or the body of a request with `instances`."""
    value = read_value(file)
    if isinstance(value, dict) and isinstance(value.get("instances"), list):
        value = value["instances"]
    if not isinstance(value, list):
        raise InvalidArgument(f"expected a list of instances in {file}, got {type(value).__name__}")
    return value


def _show(session: Session, reply: PredictReply, names: list[str]) -> None:
    answers = zip(names, reply.predictions, strict=True)
    session.show_table(
        (f"{reply.model}@{reply.version}", "answer"),
        ((name, "  ".join(_words(prediction))) for name, prediction in answers),
    )


def _words(prediction: Prediction) -> Iterator[str]:
    if prediction.error is not UNSET:
        yield f"error: {describe(prediction.error)}"
    if prediction.top is not UNSET and len(prediction.top) > 1:
        yield from (f"{scored.label} {number(scored.score)}" for scored in prediction.top)
    elif prediction.label is not UNSET:
        yield prediction.label
        if prediction.score is not UNSET:
            yield number(prediction.score)
    elif prediction.labels is not UNSET:
        yield ", ".join(prediction.labels) or "none"
    if prediction.value is not UNSET:
        values = prediction.value if isinstance(prediction.value, list) else [prediction.value]
        yield from (number(value) for value in values)
    if prediction.explanation is not UNSET and prediction.explanation.columns is not UNSET:
        columns = prediction.explanation.columns.items()
        yield f"({', '.join(f'{name} {number(value)}' for name, value in columns)})"
