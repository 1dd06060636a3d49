"""Reading `data.arrow`: memory-mapped, so that a table costs no memory until its pages are read."""

from pathlib import Path

import pyarrow as pa


def open_table(path: Path) -> pa.Table:
    with pa.memory_map(str(path), "rb") as source:
        return pa.ipc.open_file(source).read_all()
