"""The home folder of an embedded stack: private, and held by one stack at a time."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO


class CannotStart(Exception):
    """The stack cannot come up; the message says what was expected, what is there, what to do."""


@dataclass
class Lock:
    """The held lock. Its file tells others who holds the home and where it serves."""

    file: TextIO

    def tell(self, url: str, *, is_ready: bool) -> None:
        self._write(json.dumps({"pid": os.getpid(), "url": url, "ready": is_ready}))

    def _write(self, words: str) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.file.write(words)
        self.file.flush()


@dataclass(frozen=True)
class Holder:
    pid: int
    url: str
    is_ready: bool


def prepare_home(home: Path) -> None:
    """Make the folder and `logs` in it, both mode 0700. A folder with strangers in it is not taken over."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise CannotStart(f"expected a folder at {home}, found a file; choose another --home") from error
    except OSError as error:
        raise CannotStart(f"cannot make {home}: {error.strerror}; choose another --home") from error
    status = home.stat()
    if status.st_uid != os.geteuid():
        raise CannotStart(f"{home} belongs to user {status.st_uid}, not to you; choose another --home")
    if status.st_mode & 0o077:
        if any(home.iterdir()) and not (home / "lock").exists():
            raise CannotStart(
                f"{home} holds other files and others may read it (mode {status.st_mode & 0o777:04o}); "
                f"expected an empty folder or a home of Modelyard: chmod 700 it, or choose another --home"
            )
        home.chmod(0o700)
    (home / "logs").mkdir(mode=0o700, exist_ok=True)


@contextmanager
def hold(home: Path) -> Iterator[Lock]:
    """Hold the home until the block ends, or this process does, however it ends.

    Raises CannotStart with the holder's pid and URL when another stack holds it.
    """
    with (home / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = holder_of(home)
            who = (
                f"process {holder.pid}, serving {holder.url}" if holder else "a process that is just starting"
            )
            stop = f"stop it (kill {holder.pid})" if holder else "wait for it"
            raise CannotStart(f"{home} is held by {who}; {stop} or choose another --home") from error
        lock = Lock(file)
        try:
            yield lock
        finally:
            lock._write("")


def holder_of(home: Path) -> Holder | None:
    """Who says to hold the home; None where nobody does (or has not got that far)."""
    try:
        said = json.loads((home / "lock").read_text())
        return Holder(int(said["pid"]), str(said["url"]), bool(said["ready"]))
    except (FileNotFoundError, ValueError, KeyError):
        return None
