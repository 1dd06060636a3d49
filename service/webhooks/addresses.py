"""Which addresses the service may be sent to: public ones, and what the operator allows.

An owner names a URL and the service calls it from inside our network: without this an owner could reach
what only we can reach (SSRF). Special blocks: IANA's registries for IPv4 and IPv6, as of 2025 (RFC 6890).
"""

import ipaddress
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Self

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_CLOSED_V4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this host; Linux takes it for loopback
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' NAT
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local: the clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

#: Of IPv6 only global unicast is open, without what lies in it for other ends.
_OPEN_V6 = IPv6Network("2000::/3")
_CLOSED_V6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, …
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address of any kind is inside
        "3fff::/20",
    )
)

#: NAT64 (RFC 6052): the last 32 bits are the IPv4 address that is reached.
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class Allowed:
    """What the operator allows beyond public addresses: networks, and hosts by their names."""

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, setting: str) -> Self:
        """Networks, addresses and names, by commas. Raises ValueError for a network that is none."""
        networks: list[Network] = []
        hosts: set[str] = set()
        for word in filter(None, (part.strip().lower() for part in setting.split(","))):
            try:
                networks.append(ipaddress.ip_network(word))
            except ValueError:
                if "/" in word or ":" in word:
                    raise
                hosts.add(word)
        return cls(tuple(networks), frozenset(hosts))

    def names(self, host: str) -> bool:
        """Whether the host is allowed as such: by its name, or as an address in a network."""
        address = literal(host)
        return host in self.hosts or (address is not None and self.holds(address))

    def holds(self, address: Address) -> bool:
        return any(_reached(address) in network for network in self.networks)

    def may_reach(self, host: str, address: Address) -> bool:
        """Whether a connection to `address` may be made, which is what `host` resolved to."""
        return host in self.hosts or self.holds(address) or is_public(address)


def is_public(address: Address) -> bool:
    reached = _reached(address)
    if isinstance(reached, IPv4Address):
        return not any(reached in block for block in _CLOSED_V4)
    return (
        reached.scope_id is None and reached in _OPEN_V6 and not any(reached in block for block in _CLOSED_V6)
    )


def literal(host: str) -> Address | None:
    """The address that a URL's host is, in any form that a resolver takes for one: `2130706433`, `0x7f.1` and
    `0177.0.0.1` are 127.0.0.1. None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeEncodeError):
        return None


def _reached(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, or the address itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(address.packed[-4:])
    return address
