"""`modelyard predict`: ask a model about images, or about rows in a JSON file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from msgspec import UNSET

from modelyard.cli.files import STDIN, read_value
from modelyard.cli.session import AsJson, Session, Shared, number
from modelyard.client import Client
from modelyard.errors import InvalidArgument, describe
from modelyard.specs import Prediction, PredictReply


def predict(
    model: str,
    files: Annotated[list[str], Parameter(allow_leading_hyphen=True)],
    *,
    top_k: int = 1,
    as_json: AsJson = False,
    session: Shared,
) -> int:
    """Ask a model. The exit status is 1 where a row could not be read.

    Args:
        model: name, name@alias or name@version
        files: images, or one .json file (or - for standard input) of instances
        top_k: name the k most likely classes
    """
    with session.client() as client:
        if any(_holds_instances(file) for file in files):
            if len(files) > 1:
                raise InvalidArgument("expected images, or one .json file or -, not several of them together")
            reply = client.models.predict(model, _instances(files[0]), top_k)
            names = [f"[{index}]" for index in range(len(reply.predictions))]
        else:
            reply, names = _predict_images(client, model, files, top_k), files
    if as_json:
        session.show_json(reply)
    else:
        _show(session, reply, names)
    return 1 if any(prediction.error is not UNSET for prediction in reply.predictions) else 0


def _predict_images(client: Client, model: str, files: list[str], top_k: int) -> PredictReply:
    """One reply of all. The version that answers the first image answers all: an alias may move meanwhile."""
    replies = [client.models.predict_image(model, Path(files[0]), top_k)]
    pinned = f"{replies[0].model}@{replies[0].version}"
    replies += [client.models.predict_image(pinned, Path(file), top_k) for file in files[1:]]
    predictions = [prediction for reply in replies for prediction in reply.predictions]
    return PredictReply(model=replies[0].model, version=replies[0].version, predictions=predictions)


def _holds_instances(file: str) -> bool:
    return file == STDIN or file.lower().endswith(".json")


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
