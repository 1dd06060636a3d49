"""Signing, the schedule, and which addresses count as public: against values from outside."""

import base64
import ipaddress
from datetime import UTC, datetime

import pytest

from core.errors import Invalid
from service.webhooks.addresses import Allowed, is_public, literal
from service.webhooks.posting import _seconds
from service.webhooks.schedule import MAX_RETRY_AFTER_S, WAITS_S, wait_s
from service.webhooks.signing import new_secret, shown, signed_headers
from service.webhooks.targets import read_target

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_signature_is_that_of_the_reference_libraries_own_test() -> None:
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert shown(secret) == "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    assert len({new_secret() for _ in range(100)}) == 100


def test_the_schedule_is_the_specifications_over_three_days_with_jitter() -> None:
    for attempts, expected_s in enumerate(WAITS_S, start=1):
        waits = [wait_s(attempts, None) or 0 for _ in range(200)]
        assert 0.8 * expected_s <= min(waits) < max(waits) <= 1.2 * expected_s
        assert max(waits) - min(waits) > 0.2 * expected_s
    assert wait_s(len(WAITS_S) + 1, None) is None
    assert sum(WAITS_S) == (75 * 60 + 35) * 60 + 5  # the specification's own total


def test_retry_after_is_never_shortened_below_a_day_and_bounded_there() -> None:
    assert wait_s(1, 3600.0) == 3600.0
    assert wait_s(1, 1e9) == MAX_RETRY_AFTER_S
    assert (wait_s(9, 1.0) or 0) > 60_000
    assert wait_s(len(WAITS_S) + 1, 3600.0) is None


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("Thu, 01 Jan 2026 00:02:00 GMT", 120.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("９", None),
        ("9" * 5000, 999_999_999.0),
    ],
)
def test_retry_after_is_a_number_or_a_date(said: str, seconds: float | None) -> None:
    assert _seconds(said, NOW) == seconds


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.215.14", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8",
     "64:ff9b::808:808"],
)  # fmt: skip
def test_public_addresses_are_reached(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.0.0.1",
     "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1",
     "255.255.255.255", "::", "::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::10.0.0.1",
     "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "100::1", "2001::1", "2001:db8::1",
     "2002:a00:1::", "2002:808:808::", "3fff::1", "fc00::1", "fd12::1", "fe80::1", "fe80::1%eth0",
     "2606:4700::1111%eth0", "fec0::1", "ff02::1"],
)  # fmt: skip
def test_other_addresses_are_not(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


def test_what_python_calls_private_is_never_public() -> None:
    """The standard library keeps a table of its own, of the same registries."""
    for number in range(0, 2**32, 65_537):
        address = ipaddress.IPv4Address(number)
        assert not (is_public(address) and not address.is_global), address


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.1", "127.0.0.1"])
def test_every_form_of_an_address_is_read_as_a_resolver_reads_it(host: str) -> None:
    assert literal(host) == ipaddress.ip_address("127.0.0.1")


def test_the_operator_allows_networks_addresses_and_names() -> None:
    allowed = Allowed.of("10.20.0.0/16, 127.0.0.1,hooks.Internal,fd00::/8,")
    assert allowed.holds(ipaddress.ip_address("10.20.3.4"))
    assert allowed.holds(ipaddress.ip_address("::ffff:10.20.3.4"))
    assert not allowed.holds(ipaddress.ip_address("10.21.3.4"))
    assert allowed.may_reach("hooks.internal", ipaddress.ip_address("192.168.0.1"))
    assert not allowed.may_reach("other.internal", ipaddress.ip_address("192.168.0.1"))
    for wrong in ("10.0.0.0/33", "10.20.3.4/16", "fd00::/zz"):
        with pytest.raises(ValueError, match=r"\S"):
            Allowed.of(wrong)


def test_plain_http_is_for_what_is_allowed_by_name() -> None:
    allowed = Allowed.of("10.20.0.0/16,hooks.internal")
    for url in ("http://hooks.internal/x", "http://10.20.3.4:8080/x", "https://hooks.example.com/x"):
        read_target(url, allowed)
    for url in ("http://hooks.example.com/", "http://8.8.8.8/", "http://10.21.3.4/"):
        with pytest.raises(Invalid):
            read_target(url, allowed)


def test_a_target_is_what_the_url_says() -> None:
    target = read_target("https://Hooks.Example.com/a/b?c=d", Allowed())
    assert (target.host, target.port, target.path) == ("hooks.example.com", 443, "/a/b?c=d")
    assert target.authority == "hooks.example.com"
    assert read_target("https://[2606:4700::1111]:8443", Allowed()).authority == "[2606:4700::1111]:8443"
