"""What is logged tells what happened and no secret."""

import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from core.logs import configure_logs
from core.settings import Settings


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_tells_where_it_broke_and_no_value_of_a_variable(
    log_format: Literal["json", "console"], capfd: pytest.CaptureFixture[str]
) -> None:
    configure_logs(Settings(log_format=log_format))

    def answer(authorization: str) -> None:
        raise ValueError("this line and no more")

    secret = "mdy_" + "0" * 22
    try:
        answer(f"Bearer {secret}")
    except ValueError as error:
        structlog.stdlib.get_logger().error("unexpected_error", exc_info=error)
    err = capfd.readouterr().err
    assert "this line and no more" in err
    assert "in answer" in err
    assert secret not in err
