"""How torchvision's classes get their files here: bounded, from a mirror where there is one, failures told
with their URL.

torchvision asks two functions before it downloads by itself (`_is_remote_location_available`,
`_download_file_from_remote_location`); it keeps the place for whoever replaces them, as is done here. It then
compares md5 sums. A mirror's bytes are its operator's own word, so their sums are not compared.
"""

import errno
import http.client
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import cast
from urllib.parse import quote, urlsplit

from torchvision.datasets import utils

from core.errors import Invalid, ModelyardError, Unavailable

TIMEOUT_S = 60
CHUNK_BYTES = 1024 * 1024


class Downloads:
    """The files of one dataset. A class may try another of its sites after a failure: the last one counts."""

    def __init__(self, dataset: str, mirror: str | None, max_bytes: int, min_free_bytes: int) -> None:
        self._dataset = dataset
        self._mirror = mirror
        self._left_bytes = self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._last_url = ""
        self._failure: ModelyardError | None = None

    def take_over(self) -> None:
        """From here on, for this whole process."""
        utils._is_remote_location_available = lambda: True
        utils._download_file_from_remote_location = self._download
        if self._mirror is not None:
            utils.check_md5 = lambda *_args, **_kwargs: True

    def problem(self, error: Exception) -> ModelyardError:
        """What to tell of an error that a dataset's class raised while it downloaded or read its files."""
        if self._failure is not None:
            return self._failure
        if isinstance(error, ModuleNotFoundError):
            return _failed(f"torchvision's {self._dataset} needs the package {error.name} on this worker")
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _disk_full()
        if "corrupted" in str(error) and self._last_url:
            return _failed(f"{self._last_url} is not what torchvision knows: its md5 sum is another")
        return _failed(
            f"torchvision's {self._dataset} did not take {self._last_url or 'what it has'} "
            f"({type(error).__name__}: {str(error)[:300]})"
        )

    def _download(self, path: str, url: str) -> None:
        """Raises URLError, at which a class tries its next site, or ends."""
        target = Path(path)
        self._last_url = url = self._url_of(url, target.name)
        self._failure = None
        try:
            self._copy(url, target)
        except BaseException as error:
            target.unlink(missing_ok=True)  # a part of it would pass for the whole at the next try
            if isinstance(error, ModelyardError):
                self._failure = error
            if not isinstance(error, OSError | http.client.HTTPException | ValueError):
                raise
            status = f"{error.code} " if isinstance(error, urllib.error.HTTPError) else ""
            reason = f"{status}{getattr(error, 'reason', None) or error}"
            self._failure = _failed(f"{url} could not be fetched ({reason})")
            raise urllib.error.URLError(reason) from error

    def _copy(self, url: str, target: Path) -> None:
        with _open(url) as reply, target.open("wb") as file:
            while chunk := reply.read(CHUNK_BYTES):
                self._take(len(chunk), target.parent)
                file.write(chunk)
            if reply.length:  # what was announced and did not come
                raise http.client.IncompleteRead(b"", reply.length)

    def _url_of(self, url: str, filename: str) -> str:
        if self._mirror is None:
            return url
        return f"{self._mirror.rstrip('/')}/{self._dataset}/{quote(filename)}"

    def _take(self, size: int, folder: Path) -> None:
        self._left_bytes -= size
        if self._left_bytes < 0:
            raise Invalid(
                f"{self._dataset} is larger than the {self._max_bytes} bytes that a dataset may have; raise "
                "MODELYARD_MAX_UPLOAD_BYTES, or upload a part of it",
                code="too_large",
            )
        if shutil.disk_usage(folder).free < self._min_free_bytes:
            raise _disk_full()


def _open(url: str) -> http.client.HTTPResponse:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"expected http:// or https://, got {url[:200]!r}")
    request = urllib.request.Request(url, headers={"User-Agent": utils.USER_AGENT})  # noqa: S310 - just checked
    opened = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310 - checked above
    return cast(http.client.HTTPResponse, opened)


def _failed(what: str) -> Unavailable:
    return Unavailable(
        f"{what}; look whether this worker reaches it, then fetch again, or set MODELYARD_DATASET_MIRROR to "
        "a place that has its files",
        code="fetch_failed",
    )


def _disk_full() -> Unavailable:
    return Unavailable(
        "the disk has too little free; delete what is not needed, then fetch it again", code="storage_full"
    )
