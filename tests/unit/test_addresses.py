"""Where a request comes from, and under which names the service is reached."""

from typing import cast

import pytest
from litestar.types import HTTPScope

from core.settings import Settings
from service.addresses import Addresses, Hosts, group_of


def asked_by(peer: str | None, *forwarded: str) -> HTTPScope:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    client = (peer, 1) if peer is not None else None
    return cast(HTTPScope, {"client": client, "headers": headers})


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "expected"),
    [
        ("", "9.9.9.9", ["1.1.1.1"], "9.9.9.9"),
        ("10.0.0.0/8", "9.9.9.9", ["1.1.1.1"], "9.9.9.9"),
        ("10.0.0.0/8", "10.0.0.1", ["1.1.1.1"], "1.1.1.1"),
        ("10.0.0.0/8", "10.0.0.1", ["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
        ("10.0.0.0/8", "10.0.0.1", ["6.6.6.6", "1.1.1.1, 10.0.0.2"], "1.1.1.1"),
        ("10.0.0.0/8", "10.0.0.1", ["6.6.6.6, nonsense"], "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.0/8, ::1", "::1", ["2001:db8::7"], "2001:db8::7"),
        ("10.0.0.0/8", "::ffff:10.0.0.1", ["1.1.1.1"], "1.1.1.1"),
        ("", None, [], "local"),
    ],
)
def test_only_what_trusted_proxies_say_is_believed(
    trusted: str, peer: str | None, forwarded: list[str], expected: str
) -> None:
    assert Addresses(trusted).of(asked_by(peer, *forwarded)) == expected


def test_a_setting_that_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="proxy"):
        Addresses("proxy.example")


def test_addresses_of_one_ipv6_network_are_one_client() -> None:
    assert group_of("2001:db8::1") == group_of("2001:db8::ffff:1") != group_of("2001:db8:0:1::1")
    assert group_of("10.0.0.1") == group_of("::ffff:10.0.0.1") != group_of("10.0.0.2")


def test_bound_to_one_name_it_answers_to_that_and_to_loopback() -> None:
    hosts = Hosts(Settings(host="box.example"))
    assert all(hosts.allows(name) for name in ("box.example", "localhost", "127.0.0.1", "::1"))
    assert not any(hosts.allows(name) for name in ("evil.example", "10.0.0.1", ""))


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_bound_to_everything_it_answers_to_addresses_and_to_the_names_of_its_setting(host: str) -> None:
    hosts = Hosts(Settings(host=host, allowed_hosts="models.example, Box"))
    assert all(
        hosts.allows(name) for name in ("models.example", "box", "10.0.0.1", "2001:db8::1", "localhost")
    )
    assert not any(hosts.allows(name) for name in ("evil.example", "models.example.evil.example", ""))
