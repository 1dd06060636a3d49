"""Whether anybody has committed to the database since one last looked: SQLite says so in microseconds."""

import sqlite3

from sqlalchemy import make_url

from core.db.engines import is_in_process


class Changes:
    """A connection that reads nothing but the file's own counter. For one thread."""

    def __init__(self, url: str) -> None:
        self._path = make_url(url).database or ""
        self._connection: sqlite3.Connection | None = None

    def number(self) -> int | None:
        """Another one after each commit, whoever made it. None where that is not known at the moment."""
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
            found: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:  # locked, or not there yet
            return None
        return found

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def open_changes(url: str) -> Changes | None:
    """None for a database that is a server: asking it takes as long as any query."""
    return Changes(url) if is_in_process(url) else None
