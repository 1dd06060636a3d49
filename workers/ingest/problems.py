"""What is wrong with an upload, collected row by row, and the file that tells it."""

from pathlib import Path

import msgspec

from core.errors import Invalid, ModelyardError
from modelyard.specs import ProblemError

#: Row errors gathered before ingest gives up: enough to see the pattern.
MAX_ERRORS = 20


class Problems:
    """Gathers row errors; `raise_any` turns them into one `Invalid` with the first one's code."""

    def __init__(self) -> None:
        self.errors: list[ProblemError] = []

    def add(self, pointer: str, code: str, message: str) -> None:
        """Raises as soon as there are `MAX_ERRORS`."""
        self.note(pointer, code, message)
        if self.is_full:
            self.raise_any()

    def note(self, pointer: str, code: str, message: str) -> None:
        """As `add`, without raising."""
        self.errors.append(ProblemError(pointer, code, message))

    @property
    def is_full(self) -> bool:
        return len(self.errors) >= MAX_ERRORS

    def raise_any(self) -> None:
        if not self.errors:
            return
        first = self.errors[0]
        more = len(self.errors) - 1
        others = f" (and {more} more like it, see errors)" if more else ""
        raise Invalid(f"{first.pointer}: {first.message}{others}", code=first.code, errors=self.errors)


def pointer_to(*parts: str | int) -> str:
    """An RFC 6901 pointer, `/` and `~` in names escaped: ("a/b.csv", "rows", 3) -> "/a~1b.csv/rows/3"."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def row_pointer(file: str, row: int) -> str:
    """`row` counts a file's data rows from 1; the header is not counted."""
    return pointer_to(file, "rows", row)


def write_problem(error: ModelyardError, path: Path) -> None:
    document = {"code": error.code, "detail": error.detail, "errors": error.errors}
    path.write_bytes(msgspec.json.encode(document))
