"""What a stranger who reads only /schema finds: a service with two owners who each have one of everything;
and schemathesis's settings for it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from sqlalchemy import select
from torch import nn

from core.db.models import Dataset
from core.storage.keys import data_key
from modelyard.specs import JobState
from tests.running_service import Owner, RunningService

ROOT = Path(__file__).resolve().parents[1]
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


@dataclass(frozen=True)
class Belongings:
    """Ids and names of one of everything."""

    jobs: list[str]
    checkpoint: str
    upload: str
    batch: str


def settle(service: RunningService, owner: Owner) -> Belongings:
    """A ready dataset `d`, model `m` with two versions and an alias, jobs in several states, an upload under
    way, a batch prediction."""
    net = nn.Sequential(nn.Linear(4, 3))
    owner.version(service.settings, net)
    owner.version(service.settings, net)
    created = [owner.post_job()["id"] for _ in range(3)]
    fence = owner.claim(created[1])
    owner.report(created[1], fence, metrics={"train_loss": 0.5})
    owner.claim(created[2])
    owner.move(created[2], JobState.FAILED)
    write_rows(service, owner)
    alias = owner.client.put("/v1/models/m/aliases/production", json={"version": 1})
    assert alias.status_code == 200, alias.text
    upload = owner.client.post("/v1/uploads", json={"filename": "rows.csv", "length": 20})
    assert upload.status_code == 201, upload.text
    batch = owner.client.post("/v1/batch-predictions", json={"model": "m", "dataset": "d", "format": "jsonl"})
    assert batch.status_code == 202, batch.text
    jobs = owner.client.get("/v1/jobs").json()["items"]
    first = owner.client.get("/v1/models/m/versions/1").json()["lineage"]["job"]
    checkpoint = owner.client.get(f"/v1/jobs/{first}/checkpoints").json()["items"][0]["id"]
    return Belongings([job["id"] for job in jobs], checkpoint, upload.json()["id"], batch.json()["id"])


def write_rows(service: RunningService, owner: Owner) -> None:
    """The file of each version of `d`, as an ingest leaves it."""
    table = pa.table(
        {
            "x": pa.FixedSizeListArray.from_arrays(pa.array([0.5] * 480, pa.float32()), 4),
            "y": pa.array([row % 3 for row in range(120)]),
        }
    )
    with owner.database.read() as session:
        ids = list(session.scalars(select(Dataset.id).where(Dataset.owner == owner.name)))
    for dataset_id in ids:
        path = service.settings.resolved_home() / "artifacts" / data_key(dataset_id, 0)
        path.parent.mkdir(parents=True)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)


def write_config(folder: Path, owners: list[tuple[Owner, Belongings]]) -> Path:
    """`schemathesis.toml`, with the two owners' keys as a Web Fuzzing Commons document beside it."""
    users = [
        {"name": owner.name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {owner.key}"}]}
        for owner, _ in owners
    ]
    (folder / "owners.json").write_text(json.dumps({"auth": users}))
    all_of = [belongings for _, belongings in owners]
    dictionaries = {
        "job_id": [job for one in all_of for job in one.jobs],
        "checkpoint_id": [one.checkpoint for one in all_of],
        "upload_id": [one.upload for one in all_of],
        "batch_id": [one.batch for one in all_of],
        "name": ["d", "m"],
        "model": ["m", "m@1", "m@production"],
        "alias": ["production"],
        "reference": ["1", "production"],
    }
    lines = [
        CONFIG.format(path=folder / "owners.json", peers=json.dumps([owner.name for owner, _ in owners]))
    ]
    for name, values in dictionaries.items():
        lines.append(f"[dictionaries.{name}]\nvalues = {json.dumps(values)}")
    lines.append('[parameters]\n"query.wait" = 0  # not a minute for each')
    lines += [f'"path.{name}" = {{ dictionary = "{name}", probability = 0.7 }}' for name in dictionaries]
    path = folder / "schemathesis.toml"
    path.write_text("\n".join(lines))
    return path


CONFIG = """\
hooks = "tests.schemathesis_hooks"
request-timeout = 30
max-stream-events = 2
warnings = false

[auth.wfc]
path = "{path}"
peers = {peers}

[generation]
database = "none"

[checks]
# An unloaded model is not ready, which the Open Inference Protocol says with 503; so is who is at a bound.
not_a_server_error.expected-statuses = ["2XX", "3XX", "4XX", 503]
# What has the right shape may still mean nothing that can be done, and 422 says why. 400 never may.
positive_data_acceptance.expected-statuses = ["2XX", 304, 401, 403, 404, 409, 410, 412, 413, 415, 422, 503]

# It would take its own keys away.
[[operations]]
include-name = ["DELETE /v1/keys/{{key_id}}", "POST /v1/keys/{{key_id}}/rotate"]
enabled = false

# The clients of this protocol know no 422: there it is 400.
[[operations]]
include-path-regex = "^/v2/"
checks.positive_data_acceptance.expected-statuses = ["2XX", 400, 401, 403, 404, 413, 415, 503]
"""


def run_schemathesis(url: str, config: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [
        str(SCHEMATHESIS), "--config-file", str(config), "run", f"{url}/schema/openapi.json",
        "--no-color", "--continue-on-failure", *options,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=config.parent, env=environment, capture_output=True, text=True, timeout=1500
    )
