"""`python -m service.reference docs/reference/openapi.json` writes what /schema/openapi.json answers, so that
a change of the wire is a change of a file that somebody reads."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from core.settings import Settings
from service.app import create_app
from service.schema import complete


def document() -> dict[str, Any]:
    """As plain JSON, of a service with no settings of its own. Opens no database and no socket."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(home=Path(folder))).app
    schema: dict[str, Any] = msgspec.json.decode(
        msgspec.json.encode(complete(app.openapi_schema.to_schema(), app))
    )
    return schema


def written(schema: dict[str, Any]) -> str:
    """In an order that does not change where the meaning does not."""
    return msgspec.json.format(msgspec.json.encode(schema, order="sorted"), indent=1).decode() + "\n"


def main(arguments: list[str]) -> int:
    match arguments:
        case [path]:
            Path(path).write_text(written(document()), encoding="utf-8")
            return 0
        case _:
            sys.stderr.write("expected one argument: the file to write\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
