"""Which uploads a spec names, and where their bytes lie. No torch: service and supervisor ask."""

from collections.abc import Iterator
from typing import Any

from core.faults import join


def upload_key(upload_id: str) -> str:
    """The storage key of a complete upload."""
    return f"uploads/{upload_id}/data"


def uploads_in(spec: Any, pointer: str = "") -> Iterator[tuple[str, str]]:
    """JSON pointer to the id, and the id, of every `{"upload": id}` in a spec's components."""
    if isinstance(spec, dict):
        if set(spec) == {"upload"} and isinstance(spec["upload"], str):
            yield f"{pointer}/upload", spec["upload"]
            return
        for word, value in spec.items():
            yield from uploads_in(value, join(pointer, word))
    elif isinstance(spec, list):
        for place, value in enumerate(spec):
            yield from uploads_in(value, f"{pointer}/{place}")


def uploads_of(spec: dict[str, Any]) -> dict[str, str]:
    """Pointer to id, of the parts of a job that may name an upload; not of its free `metadata`."""
    parts = {word: spec.get(word) for word in ("model", "prepare")}
    return dict(uploads_in(parts))
