"""Fetch: a dataset that torchvision knows -> a file such as a user would upload, in a process of its own.

Run as `python -m workers.fetch`. Knows torch and torchvision; no database, no broker. What it makes is read
by the ordinary ingest.
"""

from typing import Any

from msgspec import Struct


class Fetched(Struct):
    """What `fetched.json` says of the file beside it: how ingest is to read it."""

    filename: str
    format: str
    options: dict[str, Any]
    bytes: int
    sha256: str
