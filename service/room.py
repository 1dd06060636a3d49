"""How many bytes of bodies, and of tensors that were read from them, there may be at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import Overloaded
from service.bodies import MIB

MAX_BYTES = 256 * MIB


class Room:
    def __init__(self, limit_bytes: int = MAX_BYTES) -> None:
        self._limit = limit_bytes
        self._taken = 0

    @contextmanager
    def taken(self, size_bytes: int) -> Iterator[None]:
        """Raises Overloaded where it isn't there."""
        if self._taken + size_bytes > self._limit:
            raise Overloaded(
                f"Requests of {self._taken} bytes are being read and answered, {self._limit} is the bound; "
                "send the same request again.",
                retry_after_s=1,
            )
        self._taken += size_bytes
        try:
            yield
        finally:
            self._taken -= size_bytes
