"""Write what documented things say of themselves and whether they are classes or functions, as train.csv and
test.csv.

    python -m examples.two_inputs.make_data things.zip

`summary` is the docstring's first sentence; `parameters`, `defaults` and `lines` are counted.
"""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from examples.docstrings import documented, sentences, write_zip

HEADER = ["summary", "parameters", "defaults", "lines", "kind"]


def rows() -> list[tuple[str, int, int, int, str]]:
    """Those without a signature or without a sentence are left out, and so are methods."""
    found = []
    for each in documented():
        summary = next(sentences(each.docstring), None)
        parameters = signature_of(each.thing)
        if "." in each.name or summary is None or parameters is None:
            continue
        defaults = sum(parameter.default is not parameter.empty for parameter in parameters)
        kind = "class" if inspect.isclass(each.thing) else "function"
        found.append((summary, len(parameters), defaults, each.docstring.count("\n") + 1, kind))
    return found


def signature_of(thing: Callable[..., Any]) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(thing).parameters.values())
    except (ValueError, TypeError):  # written in C without one
        return None


if __name__ == "__main__":
    write_zip(Path(sys.argv[1]), HEADER, rows())
