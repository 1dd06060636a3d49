"""The URL of a webhook, read once and strictly: what is checked here is what is connected to."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from core.errors import Invalid
from modelyard.specs import ProblemError
from service.webhooks.addresses import Allowed, is_public, literal

#: What `urlsplit` would silently drop or programs read differently is refused before it is split.
_PLAIN = re.compile(r"[!-~]+")
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


@dataclass(frozen=True)
class Target:
    """`host` as in the URL, in lower case, an IPv6 address without its brackets."""

    is_tls: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"


def read_target(url: str, allowed: Allowed) -> Target:
    """Raises Invalid where the URL is none of ours, or names an address that is not allowed. A name is
    resolved when something is sent, and not here."""
    if not _PLAIN.fullmatch(url) or "\\" in url or "#" in url:
        raise _refusal("expected a URL of printable ASCII without spaces, backslash and fragment")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refusal(f"this is no URL: {error}") from error
    host = (parts.hostname or "").lower()
    if parts.scheme not in ("https", "http") or not host:
        raise _refusal("expected https://host/…")
    if "@" in parts.netloc:
        raise _refusal("a URL carries no user and password; the signature tells the receiver who sends")
    if port == 0:
        raise _refusal("expected a port from 1 to 65535, got 0")
    address = literal(host)
    if address is None and not _NAME.fullmatch(host):
        raise _refusal(f"{host[:100]!r} is no host name; write an international one as xn--…")
    if address is not None and not (is_public(address) or allowed.holds(address)):
        raise _refusal("its host is an address that is not public; the operator may allow it", "not_public")
    is_tls = parts.scheme == "https"
    if not is_tls and not allowed.names(host):
        raise _refusal("expected https://; http is for hosts that the operator allows", "https_required")
    query = f"?{parts.query}" if parts.query else ""
    return Target(is_tls, host, port or (443 if is_tls else 80), (parts.path or "/") + query)


def _refusal(said: str, code: str = "invalid_url") -> Invalid:
    return Invalid(
        f"The webhook's url cannot be taken: {said}.",
        code=code,
        errors=[ProblemError("/url", code, said)],
    )
