"""Hostile specs through the real service: a Problem with pointers, never a 500, and the next plan is well."""

from typing import Any

import pytest

from tests.attempts import c, seq
from tests.running_service import Owner

LINE = c("Linear", out_features=3)
DEEP = (
    b'{"name":"m","dataset":"d","model":'
    + b'{"type":"Sequential","layers":[' * 20_000
    + b"]}" * 20_000
    + b"}"
)


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"model": c("Linear", in_features=2**31, out_features=2**31)}, "/model/in_features"),
        ({"model": seq(*[c("ReLU")] * 10_000)}, "/model/layers"),
        ({"model": c("Linear", out_features=2**31 - 1)}, "/model"),
        ({"model": seq(c("Conv1d", out_channels=1, kernel_size=1, stride=-1))}, "/model/layers/0/stride"),
        ({"model": {"type": ["Linear"]}}, "/model"),
        ({"model": LINE, "optimizer": c("SGD", param_groups=[{"match": "x"}] * 10_000)}, "/optimizer"),
        ({"model": LINE, "target_transform": [c("Bin", quantiles=2**31 - 1)]}, "/target_transform"),
    ],
)
def test_a_hostile_spec_is_told_where_it_is_hostile(me: Owner, changes: dict[str, Any], pointer: str) -> None:
    me.dataset()
    reply = me.client.post("/v1/plans", json=me.job(**changes))
    assert reply.status_code == 422, reply.text
    assert reply.headers["content-type"].startswith("application/problem+json")
    assert any(error["pointer"].startswith(pointer) for error in reply.json()["errors"]), reply.text
    assert me.client.post("/v1/plans", json=me.job()).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 100_000 + b"]" * 100_000, 400),
        (DEEP, 400),
        (b'{"name":"m","dataset":"d","model":{"type":"Linear","out_features":NaN}}', 400),
        (b" " * 2**20 + b"{}", 413),
    ],
    ids=["lists", "layers", "nan", "long"],
)
def test_a_body_that_is_no_spec_is_refused(me: Owner, body: bytes, status: int) -> None:
    me.dataset()
    reply = me.client.post("/v1/plans", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == status, reply.text
    assert me.client.post("/v1/plans", json=me.job()).status_code == 200
