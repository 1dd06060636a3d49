"""What a helper child may be made to do; each is found in the child by its name."""

import json
import os
import time
from pathlib import Path

import msgspec

from core.export.make import Order
from core.storage.durable import describe as described
from service.export_child import Made


def describe(_payload: bytes) -> bytes:
    """Who answers, and how it stands."""
    status = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line
    )
    own = {"pid": os.getpid(), "nice": os.getpriority(os.PRIO_PROCESS, 0), "threads": int(status["Threads"])}
    return json.dumps(own).encode()


def obey(payload: bytes) -> bytes:
    """`spin`, `sleep <seconds>`, `crash`, `crash once <file>`, `take <bytes>`; anything else comes back."""
    match payload.decode().split():
        case ["spin"]:
            while True:
                pass
        case ["sleep", seconds]:
            time.sleep(float(seconds))
        case ["crash", "once", file] if not Path(file).exists():
            Path(file).touch()
            os.abort()
        case ["crash"]:
            os.abort()
        case ["take", size]:
            try:
                bytearray(int(size))
            except MemoryError:
                return b"refused"
    return describe(payload) if payload == b"describe" else payload


def export(payload: bytes) -> bytes:
    """Does what the job's id says, then makes a file of it."""
    order = msgspec.msgpack.decode(payload, type=Order)
    obey(order.lineage["job"].encode())
    Path(order.target).write_text(order.lineage["job"])
    return msgspec.msgpack.encode(Made(described(Path(order.target))))
