"""What is asked too much of: predictions of a net that takes a while, uploads of a dataset, posted jobs."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from benchmarks.overload.volley import Make
from benchmarks.serving.cases import MLP, RESNET
from benchmarks.serving.pictures import encode, make_pictures, write_zip
from benchmarks.serving.trained import train
from modelyard import Client

Name = Literal["predict", "uploads", "jobs"]
NAMES: tuple[Name, ...] = get_args(Name)


@dataclass(frozen=True)
class Target:
    """`good` are the statuses of what was done; `clean` takes back what asking has made."""

    name: Name
    make: Make
    good: tuple[int, ...]
    clean: Callable[[], None]


def make_target(name: Name, client: Client, key: str, folder: Path) -> Target:
    match name:
        case "predict":
            return _predictions(client, key, folder)
        case "uploads":
            return _uploads(client, key, folder)
        case "jobs":
            return _jobs(client, key, folder)


def _predictions(client: Client, key: str, folder: Path) -> Target:
    """A JPEG to ResNet-18: some 20 ms of two cores each."""
    train(client, RESNET, folder / RESNET.name)
    pictures, _ = make_pictures(RESNET, 1, 3)
    request = _request(
        "POST", client, key, f"/v1/models/{RESNET.name}/predict", encode(pictures[0], "JPEG"), "image/jpeg"
    )
    return Target("predict", lambda: request, (200,), lambda: None)


def _uploads(client: Client, key: str, folder: Path) -> Target:
    body = write_zip(MLP, folder / "uploaded.zip").read_bytes()
    numbers = itertools.count()

    def make() -> bytes:
        path = f"/v1/datasets/upload-{next(numbers)}"
        return _request("PUT", client, key, path, body, "application/zip")

    def clean() -> None:
        for dataset in client.datasets.list():
            if dataset.name.startswith("upload-"):
                client.datasets.delete(dataset.name, dataset.version)

    return Target("uploads", make, (201, 202), clean)


def _jobs(client: Client, key: str, folder: Path) -> Target:
    client.datasets.push(MLP.name, write_zip(MLP, folder / "trained.zip"))
    body = json.dumps(MLP.spec(MLP.name, "overload")).encode()
    request = _request("POST", client, key, "/v1/jobs", body, "application/json")

    def clean() -> None:
        for job in client.jobs.list(state="queued"):
            client.jobs.cancel(job.id)

    return Target("jobs", lambda: request, (202,), clean)


def _request(method: str, client: Client, key: str, path: str, body: bytes, media_type: str) -> bytes:
    head = [
        f"{method} {path} HTTP/1.1",
        f"Host: {urlsplit(client.base_url).netloc}",
        f"Authorization: Bearer {key}",
        f"Content-Type: {media_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body
