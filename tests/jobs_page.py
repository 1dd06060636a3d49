"""The pages on jobs as a test reads them: pieces of JSON, what stands beside each, and their datasets."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from core.data.manifest import ColumnStats, Kind, Manifest
from modelyard.specs import Feature
from tests import manifests

Component = dict[str, Any]

#: By name.
PAGES = {
    name: (Path(__file__).parents[1] / "docs" / name).read_text()
    for name in ("jobs.md", "training.md", "devices.md")
}

#: Python under this word instead of a dataset's is said to a service (tests/e2e/test_training_page.py).
CLIENT = "client"

_BLOCK = re.compile(
    r"^#+ (?P<heading>[^\n]+)$|^```(?P<language>\w+)(?: (?P<dataset>\w+))?\n(?P<body>.*?)^```$", re.M | re.S
)


class Piece(Struct, frozen=True):
    """Fields of a job on a dataset, with the Python beside them or the words under them. Those under the
    heading "Refused" are `is_refused`."""

    page: str
    line: int
    dataset: str
    fields: dict[str, Any]
    is_refused: bool
    python: str = ""
    says: str = ""

    @property
    def name(self) -> str:
        return f"{self.page} line {self.line} {'-'.join(self.fields)}"

    @property
    def manifest(self) -> Manifest:
        return DATASETS[self.dataset][0]

    @property
    def job(self) -> dict[str, Any]:
        """The fields over a job that runs."""
        return {"name": "m", "dataset": "d", "model": DATASETS[self.dataset][1]} | self.fields


def pieces() -> Iterator[Piece]:
    for name, text in PAGES.items():
        yield from _pieces_of(name, text)


def said_to_a_service(page: str) -> list[str]:
    """The Python of a page that speaks to a service by our client."""
    blocks = _BLOCK.finditer(_text_of(page))
    return [block["body"] for block in blocks if block["dataset"] == CLIENT]


def said_in_a_shell(page: str) -> list[str]:
    """What a page has a shell say, whatever it is about."""
    return [block["body"] for block in _BLOCK.finditer(_text_of(page)) if block["language"] == "sh"]


def _text_of(page: str) -> str:
    return (Path(__file__).parents[1] / "docs" / page).read_text()


def _pieces_of(page: str, text: str) -> Iterator[Piece]:
    """Those of one fence belong in turn to the statements of Python, or lines of text, in the next."""
    is_refused, open_pieces = False, list[Piece]()
    for block in _BLOCK.finditer(text):
        if block["heading"] is not None:
            is_refused = block["heading"] == "Refused"
            continue
        line, body = text[: block.start()].count("\n") + 2, block["body"]
        if block["dataset"] == CLIENT:
            continue
        match block["language"]:
            case "json":
                yield from open_pieces
                open_pieces = [
                    Piece(page, line + before, block["dataset"], fields, is_refused)
                    for before, fields in _objects(body)
                ]
            case "python":
                beside = _statements(body) if len(open_pieces) > 1 else [body]
                yield from _with(open_pieces, "python", beside, line)
                open_pieces = []
            case "text":
                yield from _with(open_pieces, "says", body.splitlines(), line)
                open_pieces = []
    yield from open_pieces


def _with(found: list[Piece], field: str, beside: list[str], line: int) -> Iterator[Piece]:
    assert len(found) == len(beside) > 0, f"line {line}: {len(beside)} for {len(found)} pieces of JSON"
    for piece, text in zip(found, beside, strict=True):
        yield replace(piece, **{field: text})


def _objects(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each with the number of lines before it."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        fields, end = decoder.raw_decode(text, at)
        yield text[:at].count("\n"), fields
        at = end + len(text[end:]) - len(text[end:].lstrip())


def _statements(code: str) -> list[str]:
    """Those that begin on one line are one."""
    lines, starts = code.splitlines(), sorted({node.lineno for node in ast.parse(code).body})
    return [
        "\n".join(lines[start - 1 : end - 1])
        for start, end in zip(starts, [*starts[1:], len(lines) + 1], strict=True)
    ]


def _table(columns: dict[str, tuple[str, ColumnStats]], texts: list[str] | None = None) -> Manifest:
    return Manifest(
        format="table",
        kind=Kind.TABLE,
        splits={"train": 1000},
        features={name: Feature(dtype, []) for name, (dtype, _) in columns.items()},
        data_sha256="0" * 64,
        data_bytes=1,
        columns={name: stats for name, (_, stats) in columns.items()},
        text_columns=texts or [],
    )


def _number(least: float) -> tuple[str, ColumnStats]:
    return "float64", ColumnStats(count=1000, mean=least + 10, std=5.0, min=least, max=least + 100)


def _word(**counts: int) -> tuple[str, ColumnStats]:
    return "string", ColumnStats(count=1000, values=list(counts.items()))


def _truth(count: int) -> tuple[str, ColumnStats]:
    return "bool", ColumnStats(count=1000, values=[(False, 1000 - count), (True, count)])


def _linear(width: int) -> Component:
    return {"type": "Linear", "out_features": width}


_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_PICTURES = manifests.images(
    channels=3,
    sizes=[(32, 32, 1200)],
    classes=_CLASSES,
    splits={"train": 1000, "test": 200},
    class_counts={"train": [100, 50, 100, 150, 100, 100, 100, 100, 100, 100], "test": [20] * 10},
)
_HOUSES = _table(
    {
        "area": ("float64", ColumnStats(count=990, missing=10, mean=100.0, std=30.0, min=20.0, max=400.0)),
        "rooms": ("int64", ColumnStats(count=1000, mean=3.5, std=0.5, values=[(3, 500), (4, 500)])),
        "city": _word(bern=300, oslo=300, rome=400),
        "street": ("string", ColumnStats(count=1000, values=[(f"street {n}", 20) for n in range(50)])),
        "trust": _number(0.5),
        "garden": _truth(600),
        "pool": _truth(100),
        "rent": _number(300),
        "price": _number(50_000),
    }
)
_REVIEWS = _table(
    {"review": ("string", ColumnStats(count=1000)), "stars": _number(1), "label": _word(no=400, yes=600)},
    ["review"],
)
_PAIRS = _table(
    {name: _number(-3) for name in ("a1", "a2", "b1", "b2")}
    | {"alike": ("int64", ColumnStats(count=1000, values=[(-1, 500), (1, 500)]))}
)
_CNN = [
    {"type": "Conv2d", "out_channels": 16, "kernel_size": 3, "padding": 1, "bias": False},
    {"type": "BatchNorm2d"},
    {"type": "ReLU"},
    {"type": "Flatten"},
    _linear(10),
]
_READER = [{"type": "Embedding", "embedding_dim": 8}, {"type": "LSTM", "hidden_size": 8}, _linear(2)]

#: The datasets of the page, and of each a net that fits.
DATASETS: dict[str, tuple[Manifest, Component]] = {
    "pictures": (_PICTURES, {"type": "Sequential", "layers": _CNN}),
    "houses": (_HOUSES, _linear(1)),
    "reviews": (_REVIEWS, {"type": "Sequential", "layers": _READER}),
    "pairs": (_PAIRS, _linear(1)),
}
