"""A webhook reaches nothing that its owner could not reach: refused before a packet is sent.

Two witnesses: listening sockets on this machine, and Python's audit of every `connect` of this process.
The first test shows that both see a message that is allowed.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from core.db.engines import open_database
from core.db.models import Base
from tests.certificates import certified
from tests.outbox import opened
from tests.receiver import receiving, untouched
from tests.running_service import Owner, RunningService

#: Each is an address of this machine, of its network, or no address at all, at a port that listens.
NOT_PUBLIC = {
    "loopback": "https://127.0.0.1:{port}/",
    "all of loopback": "https://127.9.9.9:{port}/",
    "mapped private": "https://[::ffff:10.0.0.1]:{port}/",
    "mapped loopback": "https://[::ffff:127.0.0.1]:{port}/",
    "metadata": "https://169.254.169.254/latest/meta-data/",
    "decimal": "https://2130706433:{port}/",
    "hexadecimal": "https://0x7f000001:{port}/",
    "octal": "https://0177.0.0.1:{port}/",
    "short": "https://127.1:{port}/",
    "unspecified": "https://0.0.0.0:{port}/",
    "zero": "https://0:{port}/",
    "loopback of IPv6": "https://[::1]:{port}/",
    "unspecified of IPv6": "https://[::]:{port}/",
    "link-local of IPv6": "https://[fe80::1]:{port}/",
    "unique local": "https://[fd00::1]:{port}/",
    "NAT64": "https://[64:ff9b::7f00:1]:{port}/",
    "local NAT64": "https://[64:ff9b:1::7f00:1]:{port}/",
    "6to4": "https://[2002:7f00:1::1]:{port}/",
    "compatible": "https://[::7f00:1]:{port}/",
    "private": "https://192.168.0.1:{port}/",
    "carriers' NAT": "https://100.64.0.1:{port}/",
    "multicast": "https://224.0.0.1:{port}/",
    "broadcast": "https://255.255.255.255:{port}/",
}

_connects: list[Any] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _connects is not None and event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        _connects.append(arguments[1])


sys.addaudithook(_note)


@contextmanager
def connects() -> Iterator[list[Any]]:
    """The addresses that this process connects or sends to, until the block ends."""
    global _connects
    _connects = []
    try:
        yield _connects
    finally:
        _connects = None


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """What is refused does not depend on the database."""
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    database = open_database(url)
    Base.metadata.create_all(database.engine)
    database.close()
    return url


async def test_ssrf_set_the_witnesses_see_what_is_allowed(database_url: str) -> None:
    with receiving() as receiver:
        async with opened(database_url, allow="127.0.0.1") as office:
            webhook = await office.webhook(receiver.url)
            await office.tell()
            with connects() as seen:
                await office.look()
            (delivery,) = await office.deliveries(webhook)
    assert (delivery.state, delivery.status, len(receiver.messages)) == ("delivered", 204, 1)
    assert seen == [("127.0.0.1", receiver.port)]
    with pytest.raises(AssertionError, match="a packet was sent"), untouched() as port:
        socket.create_connection(("127.0.0.1", port)).close()


@pytest.mark.parametrize("what", NOT_PUBLIC)
async def test_ssrf_set_an_address_that_is_not_public_is_refused_without_a_packet(
    database_url: str, what: str
) -> None:
    with listening() as port:
        async with opened(database_url, allow="") as office:
            webhook = await office.webhook(NOT_PUBLIC[what].format(port=port))
            await office.tell()
            with connects() as seen:
                await office.look()
            (delivery,) = await office.deliveries(webhook)
    assert (delivery.state, delivery.status, delivery.attempts) == ("waiting", None, 1)
    assert delivery.error.startswith("refused: ")
    assert seen == []


async def test_ssrf_set_a_name_of_loopback_is_refused_without_a_packet(database_url: str) -> None:
    with listening() as port:
        async with opened(database_url, allow="") as office:  # resolved by the machine itself
            webhook = await office.webhook(f"https://localhost:{port}/")
            await office.tell()
            with connects() as seen:
                await office.look()
            (delivery,) = await office.deliveries(webhook)
    assert delivery.error == "refused: the host has an address that is not public"
    assert seen == []


async def test_ssrf_set_a_name_that_does_not_resolve_is_refused(database_url: str) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with opened(database_url, allow="", resolve=resolve) as office:
        webhook = await office.webhook("https://nowhere.example/")
        await office.tell()
        with connects() as seen:
            await office.look()
        (delivery,) = await office.deliveries(webhook)
    assert delivery.error == "refused: the host's name does not resolve"
    assert seen == []


async def test_ssrf_set_a_name_that_rebinds_is_resolved_once_and_reached_where_it_was_checked(
    database_url: str, tmp_path: Path
) -> None:
    """127.0.0.2 stands for the public address, 127.0.0.1 for ours: a second look at the name gives ours."""
    server, client = certified("rebind.example", tmp_path)
    answers = [["127.0.0.2"], ["127.0.0.1"], ["127.0.0.2", "127.0.0.1"]]

    async def resolve(host: str, port: int) -> list[str]:
        assert host == "rebind.example"
        return answers.pop(0)

    with receiving(host="127.0.0.2", tls=server) as receiver, untouched("127.0.0.1", receiver.port):
        url = f"https://rebind.example:{receiver.port}/hook"
        async with opened(database_url, allow="127.0.0.2", resolve=resolve, tls=client) as office:
            webhook = await office.webhook(url)
            await office.tell()
            with connects() as seen:
                await office.look()
                assert len(answers) == 2
                await office.tell(2)
                await office.look()
            first, *others = await office.deliveries(webhook)
    (message,) = receiver.messages
    assert message.headers["host"] == f"rebind.example:{receiver.port}"
    assert first.state == "delivered"
    assert [one.error for one in others] == ["refused: the host has an address that is not public"] * 2
    assert answers == []
    assert seen == [("127.0.0.2", receiver.port)]


async def test_ssrf_set_who_stands_at_the_address_must_have_the_names_certificate(
    database_url: str, tmp_path: Path
) -> None:
    server, _ = certified("other.example", tmp_path)
    _, client = certified("hooks.example", tmp_path)

    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    with receiving(tls=server) as receiver:
        async with opened(database_url, resolve=resolve, tls=client) as office:
            webhook = await office.webhook(f"https://hooks.example:{receiver.port}/")
            await office.tell()
            await office.look()
            (delivery,) = await office.deliveries(webhook)
    assert delivery.error == "TLS failed: CERTIFICATE_VERIFY_FAILED"
    assert receiver.messages == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_ssrf_set_a_redirect_to_localhost_is_not_followed(database_url: str, status: int) -> None:
    with receiving() as receiver, untouched("127.0.0.2") as port:
        receiver.statuses = [status]
        receiver.headers = {"Location": f"http://127.0.0.2:{port}/"}
        async with opened(database_url, allow="127.0.0.0/8") as office:
            webhook = await office.webhook(receiver.url)
            await office.tell()
            with connects() as seen:
                await office.look()
            (delivery,) = await office.deliveries(webhook)
    assert (delivery.state, delivery.status) == ("waiting", status)
    assert delivery.error == f"answered {status}: a redirect, which is not followed"
    assert seen == [("127.0.0.1", receiver.port)]


async def test_ssrf_set_a_proxy_of_the_environment_is_not_asked(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as receiver, untouched() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        async with opened(database_url) as office:
            await office.webhook(receiver.url)
            await office.tell()
            await office.look()
    assert len(receiver.messages) == 1


@pytest.mark.parametrize("what", NOT_PUBLIC)
def test_ssrf_set_the_service_does_not_even_take_such_an_address(
    service: RunningService, me: Owner, what: str
) -> None:
    body = {"url": NOT_PUBLIC[what].format(port=443), "events": ["job.failed"]}
    reply = me.client.post("/v1/webhooks", json=body)
    assert (reply.status_code, reply.json()["code"]) == (422, "not_public")


@contextmanager
def listening() -> Iterator[int]:
    """A port where every address of this machine listens, and may see nobody."""
    with ExitStack() as stack:
        port = stack.enter_context(untouched("0.0.0.0"))
        if has_ipv6():
            stack.enter_context(untouched("::", port))
        yield port


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
