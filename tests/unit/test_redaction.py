"""What looks like a key or a password is not said."""

import pytest

from core.redaction import redact
from service.keys import new_key


@pytest.mark.parametrize(
    "around", ["{}", "?key={}&x=1", '{{"a": "{}"}}', "/v1/jobs/{}/events", "Bearer {}.", "X{}"]
)
def test_a_key_is_left_out_wherever_it_stands(around: str) -> None:
    key = new_key()
    for shown in (key, key[:-3], key.swapcase(), key + "x"):
        said = redact(around.format(shown))
        assert shown[4:12] not in said
        assert said.count("_…") == 1


def test_a_webhooks_secret_and_a_password_in_a_url_are_left_out() -> None:
    assert redact("signed with whsec_c2VjcmV0L3NlY3JldA==") == "signed with whsec_…"
    assert redact("postgresql://me:pass%20word@db/x?y=1") == "postgresql://…@db/x?y=1"
    assert redact("redis://:hunter2@[::1]:6379/0") == "redis://…@[::1]:6379/0"


@pytest.mark.parametrize("text", ["http://127.0.0.1:8000/v1/jobs", "job_0190", "mdy_", "name@1", "a_b: c@d"])
def test_all_else_stays(text: str) -> None:
    assert redact(text) == text
