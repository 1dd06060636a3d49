"""Where the service is, and with which key: from the arguments, else from the environment."""

import os
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from modelyard.errors import InvalidArgument

DEFAULT_URL = "http://127.0.0.1:8000"


def resolve_url(base_url: str | None) -> str:
    """`base_url`, else MODELYARD_URL, else the default of `modelyard up`. Raises InvalidArgument."""
    url = base_url or os.environ.get("MODELYARD_URL") or DEFAULT_URL
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidArgument(f"expected the service's URL such as {DEFAULT_URL}, got {url!r}")
    return url.rstrip("/")


def resolve_key(key: str | None, url: str) -> str | None:
    """`key`, else MODELYARD_KEY, else the admin key of a service on this very machine.

    The file is read for loopback addresses only: an admin key is nothing to send elsewhere unasked.
    """
    key = key or os.environ.get("MODELYARD_KEY")
    if key:
        return key.strip()
    if not is_loopback(url):
        return None
    home = Path(os.environ.get("MODELYARD_HOME") or "~/.modelyard").expanduser()
    try:
        return (home / "admin.key").read_text(encoding="ascii").strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
