"""A foreign judge: schemathesis reads /schema as a stranger would, asks with two owners' keys, and checks
every answer against it."""

from pathlib import Path

import pytest

from tests.judged import run_schemathesis, settle, write_config
from tests.running_service import run_service

DEEP = (pytest.mark.deep, pytest.mark.timeout(1200))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--max-examples", "3", "--seed", "1"), id="short", marks=pytest.mark.timeout(300)),
        pytest.param(("--max-examples", "50", "--seed", "2"), id="long", marks=DEEP),
    ],
)
def test_every_answer_is_one_that_the_schema_names(tmp_path: Path, options: tuple[str, ...]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with (
        run_service(f"sqlite:///{home / 'modelyard.db'}", home, wrong_keys_per_s=10_000) as service,
        service.owner() as one,
        service.owner() as other,
    ):
        owners = [(owner, settle(service, owner)) for owner in (one, other)]
        done = run_schemathesis(service.url, write_config(tmp_path, owners), *options)
    assert done.returncode == 0, done.stdout + done.stderr
