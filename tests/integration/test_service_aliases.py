"""Aliases: every move is written down, one call walks back, a requirement keeps worse versions out."""

import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from sqlalchemy import select
from torch import nn

from core.db.models import Checkpoint, Dataset, Job
from core.storage.keys import data_key
from modelyard.specs import JobState
from tests.rivals import clusters, linear, write_arrays
from tests.running_service import Owner, RunningService

pytestmark = pytest.mark.usefixtures("service_fork_server")

ALIAS = "/v1/models/m/aliases/production"
CLIENTS = 20


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(4, 3))


def put(me: Owner, version: int, status: int = 200, **body: Any) -> dict[str, Any]:
    reply = me.client.put(ALIAS, json={"version": version, **body})
    assert reply.status_code == status, reply.text
    return dict(reply.json())


def roll_back(me: Owner, status: int = 200, **body: Any) -> dict[str, Any]:
    reply = me.client.post(f"{ALIAS}/rollback", json=body) if body else me.client.post(f"{ALIAS}/rollback")
    assert reply.status_code == status, reply.text
    return dict(reply.json())


def history(me: Owner) -> list[dict[str, Any]]:
    """Oldest first, through as many pages as it takes."""
    moves: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        params = {"limit": 50} if after is None else {"limit": 50, "after": after}
        page = me.client.get(f"{ALIAS}/history", params=params).json()
        moves += page["items"]
        after = page["next"]
        if after is None:
            return moves[::-1]


def scored(me: Owner, service: RunningService, net: nn.Module, *scores: float | None, **changes: Any) -> None:
    """A version for each value of val_accuracy, all on the same rows."""
    for score in scores:
        me.version(service.settings, net, scores={"val_accuracy": score, "val_loss": 0.3}, **changes)


def test_every_move_says_who_when_why_and_from_where_to_where(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    scored(me, service, net, 0.5, 0.6)
    put(me, 1)
    put(me, 2, reason="the evening's training")
    roll_back(me, reason="slower than before")
    assert me.client.delete(ALIAS).status_code == 204
    moves = history(me)
    assert [(one["seq"], one["kind"], one["from"], one["to"]) for one in moves] == [
        (1, "set", None, 1),
        (2, "set", 1, 2),
        (3, "rollback", 2, 1),
        (4, "delete", 1, None),
    ]
    assert [one["reason"] for one in moves] == [None, "the evening's training", "slower than before", None]
    assert all((one["by"]["owner"], one["by"]["name"]) == (me.name, "test") for one in moves)
    assert all(one["by"]["key"].startswith("key_") for one in moves)
    assert all(earlier["at"] <= later["at"] for earlier, later in pairwise(moves))


def test_rollbacks_walk_back_until_there_is_nothing_before(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    scored(me, service, net, 0.5, 0.6, 0.7)
    for version in (1, 2, 3):
        put(me, version)
    assert [roll_back(me)["aliases"]["production"] for _ in range(2)] == [2, 1]
    assert roll_back(me, 409)["code"] == "no_version_before"
    put(me, 3)
    assert roll_back(me)["aliases"]["production"] == 1
    assert roll_back(me, 409)["code"] == "no_version_before"
    assert me.client.get("/v1/models/m").json()["aliases"] == {"production": 1}


def test_a_rollback_passes_over_versions_that_are_gone(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    scored(me, service, net, 0.5, 0.6, 0.7)
    for version in (1, 2, 1, 3):
        put(me, version)
    assert me.client.delete("/v1/models/m/versions/2").status_code == 204
    assert roll_back(me)["aliases"]["production"] == 1
    assert roll_back(me, 409)["code"] == "no_version_before"


def test_a_move_to_where_the_alias_stands_is_no_move(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    scored(me, service, net, 0.5)
    put(me, 1)
    put(me, 1)
    put(me, 1, require={"metric": "val_accuracy", "min_delta": 0.1})
    assert len(history(me)) == 1


def test_a_deleted_alias_begins_anew_and_keeps_its_history(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    scored(me, service, net, 0.5, 0.6)
    put(me, 1)
    me.client.delete(ALIAS)
    assert me.client.delete(ALIAS).status_code == 404
    assert roll_back(me, 404)["code"] == "not_found"
    put(me, 2)
    assert roll_back(me, 409)["code"] == "no_version_before"
    assert [one["to"] for one in history(me)] == [1, None, 2]


def test_a_worse_version_is_refused_with_both_numbers(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    scored(me, service, net, 0.93, 0.91, 0.94)
    put(me, 1)
    problem = put(me, 2, 409, require={"metric": "val_accuracy", "min_delta": 0})
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("requirement_failed", "/require")
    assert "m@2 has 0.91" in problem["detail"]
    assert "m@1 has 0.93" in problem["detail"]
    assert (
        put(me, 3, 409, require={"metric": "val_accuracy", "min_delta": 0.02})["code"] == "requirement_failed"
    )
    assert me.client.get("/v1/models/m").json()["aliases"] == {"production": 1}
    put(me, 3, require={"metric": "val_accuracy", "min_delta": 0.01})
    put(me, 2, require={"metric": "val_accuracy", "min_delta": -0.05})
    assert [one["required"] for one in history(me)] == [
        None,
        {
            "metric": "val_accuracy",
            "mode": "max",
            "min_delta": 0.01,
            "candidate": 0.94,
            "incumbent": 0.93,
            "rows": None,
        },
        {
            "metric": "val_accuracy",
            "mode": "max",
            "min_delta": -0.05,
            "candidate": 0.91,
            "incumbent": 0.94,
            "rows": None,
        },
    ]


def test_the_smaller_loss_is_the_better_one(service: RunningService, me: Owner, net: nn.Module) -> None:
    for loss in (0.3, 0.4, 0.2):
        me.version(service.settings, net, scores={"val_loss": loss})
    put(me, 1)
    assert put(me, 2, 409, require={"metric": "val_loss"})["code"] == "requirement_failed"
    put(me, 2, require={"metric": "val_loss", "mode": "max"})
    put(me, 3, require={"metric": "val_loss", "min_delta": 0.1})


def test_the_first_version_has_nothing_to_be_better_than_but_needs_a_number(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    scored(me, service, net, None, 0.1)
    required = {"metric": "val_accuracy"}
    assert put(me, 1, 409, require=required)["code"] == "requirement_failed"
    put(me, 2, require=required)
    assert history(me)[0]["required"]["incumbent"] is None


@pytest.mark.parametrize(
    ("require", "pointer"),
    [
        ({"metric": "val_acuracy"}, "/require/metric"),
        ({"metric": "train_loss"}, "/require/metric"),
        ({"metric": "val_accuracy", "min_delta": "0"}, "/require/min_delta"),
        ({"metric": "val_accuracy", "mode": "most"}, "/require/mode"),
        ({"metric": "val_accuracy", "delta": 0}, "/require/delta"),
        ({"min_delta": 0}, "/require"),
    ],
)
def test_a_requirement_that_means_nothing_is_422_and_points_at_it(
    service: RunningService, me: Owner, net: nn.Module, require: dict[str, Any], pointer: str
) -> None:
    me.version(service.settings, net, scores={"val_accuracy": 0.5, "train_loss": 0.1})
    problem = put(me, 1, 422, require=require)
    assert problem["errors"][0]["pointer"] == pointer
    assert me.client.get("/v1/models/m").json()["aliases"] == {}


def test_a_metric_of_unknown_direction_asks_for_one(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    metric = {"type": "Specificity", "name": "specificity"}
    me.version(service.settings, net, scores={"val_specificity": 0.5}, metrics=[metric])
    required = {"metric": "val_specificity"}
    assert put(me, 1, 422, require=required)["errors"][0]["code"] == "missing_mode"
    put(me, 1, require={**required, "mode": "max"})


def test_numbers_of_different_rows_are_not_compared(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    scored(me, service, net, 0.5)
    scored(me, service, net, 0.9, split={"seed": 1})
    put(me, 1)
    problem = put(me, 2, 409, require={"metric": "val_accuracy"})
    assert problem["code"] == "not_comparable"
    assert "their splits differ" in problem["detail"]
    assert "the rows of d@2 are deleted" in problem["detail"]  # this test's datasets have none
    scored(me, service, net, 0.9, environment={"precision": "bf16"})
    assert "their precisions differ" in put(me, 3, 409, require={"metric": "val_accuracy"})["detail"]
    problem = put(me, 2, 409, require={"metric": "val_loss"})
    assert "a loss is compared as it was registered only" in problem["detail"]
    assert me.client.get("/v1/models/m").json()["aliases"] == {"production": 1}


def test_versions_of_different_splits_are_measured_again_on_rows_that_neither_learned_from(
    service: RunningService, me: Owner
) -> None:
    x, y = clusters(900)
    folder = service.settings.resolved_home() / "scratch" / me.name
    dataset = write_arrays(folder / "data.arrow", x, y)
    for seed, claimed in ((0, 0.1), (4, 0.9), (1, 0.2)):  # what is claimed must not matter
        split = {"validation": 0.3, "seed": seed}
        me.version(
            service.settings, linear(seed), dataset=dataset, scores={"val_accuracy": claimed}, split=split
        )
    with me.database.read() as session:
        rows = list(session.scalars(select(Dataset).where(Dataset.owner == me.name)))
    for row in rows:
        path = service.settings.resolved_home() / "artifacts" / data_key(row.id, row.fence)
        path.parent.mkdir(parents=True)
        path.write_bytes((folder / "data.arrow").read_bytes())
    put(me, 1)
    problem = put(me, 2, 409, require={"metric": "val_accuracy"})
    assert problem["code"] == "requirement_failed"
    assert "rows that neither learned from" in problem["detail"]
    put(me, 3, require={"metric": "val_accuracy", "min_delta": -0.1})
    required = history(me)[-1]["required"]
    assert required["rows"] > 20
    assert required["candidate"] > 0.7
    assert required["incumbent"] > 0.7


def test_an_alias_that_twenty_clients_move_at_once_has_one_history(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    scored(me, service, net, 0.5, 0.6, 0.7)
    refused: list[str] = []

    def move(number: int) -> None:
        with service.client(me.key) as client:
            for step in range(3):
                if (number + step) % 4 == 3:
                    reply = client.post(f"{ALIAS}/rollback")
                else:
                    reply = client.put(ALIAS, json={"version": 1 + (number + step) % 3})
                if reply.status_code != 200:
                    refused.append(reply.json()["code"])

    _together(move)
    moves = history(me)
    assert [one["seq"] for one in moves] == list(range(1, len(moves) + 1))
    assert moves[0]["from"] is None
    assert all(later["from"] == earlier["to"] != later["to"] for earlier, later in pairwise(moves))
    assert me.client.get("/v1/models/m").json()["aliases"] == {"production": moves[-1]["to"]}
    assert set(refused) <= {"not_found", "no_version_before"}
    assert len(moves) > CLIENTS


def test_no_alias_names_a_version_that_is_deleted_at_the_same_moment(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    scored(me, service, net, *[0.5] * CLIENTS)
    put(me, CLIENTS)
    statuses: dict[int, tuple[int, int]] = {}

    def move(number: int) -> None:
        version = 1 + number // 2
        with service.client(me.key) as client:
            if number % 2:
                deleted = client.delete(f"/v1/models/m/versions/{version}").status_code
                statuses[number] = (version, deleted)
            else:
                alias = f"/v1/models/m/aliases/a{version}"
                statuses[number] = (version, client.put(alias, json={"version": version}).status_code)

    _together(move)
    named = set(me.client.get("/v1/models/m").json()["aliases"].values())
    left = {one["version"] for one in me.client.get("/v1/models/m/versions?limit=200").json()["items"]}
    assert named <= left
    for number in range(0, CLIENTS, 2):
        assert (statuses[number][1], statuses[number + 1][1]) in {(200, 409), (422, 204)}


def test_what_is_no_alias_has_no_history_and_no_way_back(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    scored(me, service, net, 0.5)
    for alias in ("production", "latest", "7", "UPPER", "a%0Ab"):
        path = f"/v1/models/m/aliases/{alias}"
        assert me.client.get(f"{path}/history").status_code == 404
        assert me.client.post(f"{path}/rollback").status_code == 404
        assert me.client.delete(path).status_code == 404
    assert me.client.get("/v1/models/none/aliases/production/history").status_code == 404
    assert me.client.get(f"{ALIAS}/history?after=move_ffffffffffffffffffff").status_code == 200
    assert put(me, 1, 422, reason="two\nlines")["errors"][0]["pointer"] == "/reason"
    assert put(me, 1, 422, reason="x" * 501)["errors"][0]["pointer"] == "/reason"


def test_another_owner_and_a_key_without_promote_move_nothing(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    scored(me, service, net, 0.5, 0.6)
    put(me, 1)
    put(me, 2)
    calls: list[tuple[str, str]] = [
        ("PUT", ALIAS),
        ("DELETE", ALIAS),
        ("POST", f"{ALIAS}/rollback"),
        ("DELETE", "/v1/models/m/versions/1"),
    ]
    with service.owner() as other, service.owner("read", "train", "predict") as reader:
        for method, path in calls:
            body = {"version": 1} if method == "PUT" else None
            assert other.client.request(method, path, json=body).status_code == 404, (method, path)
            assert reader.client.request(method, path, json=body).status_code == 403, (method, path)
        assert other.client.get(f"{ALIAS}/history").status_code == 404
        assert reader.client.get(f"{ALIAS}/history").status_code == 404
    assert len(history(me)) == 2


def test_a_deleted_version_is_gone_and_its_number_is_not_given_again(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    scored(me, service, net, 0.5, 0.6)
    put(me, 2)
    path = "/v1/models/m/versions/2"
    job_id = me.client.get(path).json()["lineage"]["job"]
    files = set((service.settings.resolved_home() / "artifacts").glob("*/manifest.json"))
    assert me.client.delete(path).json()["code"] == "version_in_use"
    put(me, 1)
    assert me.client.delete(path).status_code == 204
    assert len(files - set((service.settings.resolved_home() / "artifacts").glob("*/manifest.json"))) == 1
    assert me.client.get(path).status_code == 404
    assert me.client.delete(path).status_code == 404
    assert me.client.post("/v1/models/m@2/predict", json={"instances": [[0, 0, 0, 0]]}).status_code == 404
    assert put(me, 2, 422)["code"] == "unknown_version"
    assert [one["version"] for one in me.client.get("/v1/models/m/versions").json()["items"]] == [1]
    assert me.client.get("/v1/models/m").json()["latest"] == 1
    assert [one["to"] for one in history(me)] == [2, 1]
    assert me.version(service.settings, net) == 3
    me.client.post(f"/v1/jobs/{job_id}/cancel")
    assert me.client.delete(f"/v1/jobs/{job_id}").status_code == 204  # its tombstone holds nothing back


def test_a_model_whose_versions_are_all_deleted_is_gone(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    scored(me, service, net, 0.5)
    assert me.client.delete("/v1/models/m/versions/1").status_code == 204
    assert me.client.get("/v1/models/m").status_code == 404
    assert me.client.get("/v1/models").json()["items"] == []
    assert me.client.get("/v1/models/m/versions").status_code == 404
    assert me.client.delete("/v1/models/m/versions/1").status_code == 404
    assert put(me, 1, 404)["code"] == "not_found"


def test_a_version_that_a_job_begins_with_is_kept_until_that_has_ended(
    service: RunningService, me: Owner, net: nn.Module
) -> None:
    scored(me, service, net, 0.5)
    lineage = me.client.get("/v1/models/m/versions/1").json()["lineage"]
    fork = me.post_job(name="other")
    with me.database.write() as session:
        row = session.get_one(Job, fork["id"])
        row.start_checkpoint_id = session.scalars(
            select(Checkpoint.id).where(Checkpoint.job_id == lineage["job"])
        ).one()
        session.commit()
    problem = me.client.delete("/v1/models/m/versions/1").json()
    assert (problem["status"], problem["code"]) == (409, "version_in_use")
    assert fork["id"] in problem["detail"]
    me.move(fork["id"], JobState.CANCELLED)
    assert me.client.delete("/v1/models/m/versions/1").status_code == 204


def _together(act: Callable[[int], None]) -> None:
    """All at once, each with its number."""
    start = threading.Barrier(CLIENTS)

    def run(number: int) -> None:
        start.wait(30)
        act(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
