"""The broker's URL as people write it and as kombu reads it."""

import pytest
from kombu.utils.url import parse_url

from core.queue import kombu_url


def test_a_socket_url_reaches_kombu_as_a_socket() -> None:
    parsed = parse_url(kombu_url("unix:///tmp/broker.sock"))
    assert (parsed["transport"], parsed["virtual_host"]) == ("redis+socket", "tmp/broker.sock")


def test_a_redis_url_stays_as_it_is() -> None:
    assert kombu_url("rediss://:secret@example.test:6380/2") == "rediss://:secret@example.test:6380/2"


def test_another_scheme_is_refused_by_its_setting_s_name() -> None:
    with pytest.raises(ValueError, match=r"MODELYARD_BROKER_URL.*amqp"):
        kombu_url("amqp://localhost")
