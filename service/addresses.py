"""Where a request comes from, and under which name it reached us."""

import ipaddress
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from litestar.types import HTTPScope

from core.errors import Malformed
from core.settings import Settings

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

#: Of a peer on a unix socket.
LOCAL = "local"

#: Who has one IPv6 address has as many as there are in such a network.
IPV6_BITS = 64


class Addresses:
    """The client's address: the peer's, or what a trusted proxy says of it. Raises ValueError for a setting
    that names no network."""

    def __init__(self, trusted: str) -> None:
        self._trusted = [ipaddress.ip_network(name.strip()) for name in trusted.split(",") if name.strip()]

    def of(self, scope: HTTPScope) -> str:
        """The nearest address that is no trusted proxy's; what stands before it anybody may have written."""
        client = scope["client"]
        peer = client[0] if client is not None else ""
        if not self._trusted:
            return peer or LOCAL
        found = peer
        for hop in _forwarded(scope["headers"]):
            if not self._is_trusted(found):
                break
            if _address(hop) is None:
                break
            found = hop
        return found or LOCAL

    def _is_trusted(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(address in network for network in self._trusted)


def group_of(address: str) -> str:
    """What is counted as one client: an IPv4 address, or an IPv6 network."""
    found = _address(address)
    if isinstance(found, IPv6Address):
        return str(IPv6Network((found, IPV6_BITS), strict=False))
    return str(found or address)


class Hosts:
    """The names that a Host may hold: loopback's, the one it binds, those of the settings. Where it is bound
    to all addresses, each of them too: only names can be made to lead elsewhere by who owns them."""

    def __init__(self, settings: Settings) -> None:
        host = settings.host.lower()
        bound = _address(host)
        self._takes_addresses = bound is not None and bound.is_unspecified
        named = {name.strip().lower() for name in settings.allowed_hosts.split(",") if name.strip()}
        self.names = LOOPBACK_NAMES | named | (frozenset() if self._takes_addresses else {host})

    def allows(self, name: str) -> bool:
        return name in self.names or (self._takes_addresses and _address(name) is not None)

    def refusal(self, header: str) -> Malformed | None:
        """What is wrong with a Host, if anything is."""
        name = host_name(header)
        return None if self.allows(name) else wrong_host(name, self.names)


def wrong_host(name: str, names: Iterable[str]) -> Malformed:
    return Malformed(
        f"This service answers to {', '.join(sorted(names))}; the Host is {name[:100]!r}. "
        "MODELYARD_ALLOWED_HOSTS names more.",
        code="host_not_allowed",
    )


def host_name(header: str) -> str:
    """`[::1]:8000` -> `::1`, `Localhost:8000` -> `localhost`."""
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _forwarded(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """What X-Forwarded-For says, the nearest first."""
    said = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
    return [hop.strip() for hop in ",".join(said).split(",") if hop.strip()][::-1]


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found
