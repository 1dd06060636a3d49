"""A backup holds every row and every file that rows name, and comes back whole on either database."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    Boolean,
    Connection,
    Float,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    cast,
    insert,
    null,
    select,
    text,
)

import migrations
from backups import Refused, archive, backup, rows
from backups.backup import back_up
from backups.progress import Progress
from backups.restore import restore
from core.db.engines import open_database
from core.db.models import Base, Checkpoint, UtcDateTime, utc_now
from core.settings import Settings
from core.storage import open_storage
from core.storage.durable import sha256_file
from deploy.home import hold, prepare_home
from tests import house as homes
from workers.house import House

ROOT = Path(__file__).resolve().parents[2]
CLI = [sys.executable, "-m", "modelyard.cli"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    url = f"sqlite:///{tmp_path / 'modelyard.db'}"
    migrations.upgrade(url)
    return Settings(home=tmp_path / "home", database_url=url)


@pytest.fixture
def house(settings: Settings, tmp_path: Path) -> Any:
    """With a ready dataset, and a job that left a checkpoint of two files."""
    opened = House(settings)
    (tmp_path / "digits").mkdir()
    manifest = homes.add_digits(opened, tmp_path / "digits")
    job_id = homes.add_job(opened, manifest)
    add_checkpoint(opened, job_id, step=1)
    yield opened
    opened.database.close()


def elsewhere(tmp_path: Path, name: str = "elsewhere") -> Settings:
    return Settings(home=tmp_path / name)


def make(
    settings: Settings, file: Path, *, with_files: bool = True, allow_missing: bool = False
) -> backup.Made:
    with Progress() as progress:
        return back_up(settings, file, progress, with_files=with_files, allow_missing=allow_missing)


def take(settings: Settings, file: Path, *, is_forced: bool = False) -> int:
    with Progress() as progress:
        return restore(settings, file, progress, is_forced=is_forced).num_files


def add_checkpoint(house: House, job_id: str, step: int) -> Checkpoint:
    """As a worker leaves it: files, then the row."""
    folder = f"jobs/{job_id}/1/{step}"
    written = {}
    for name in ("weights.pt", "state.pt"):
        path = house.settings.resolved_home() / name
        path.write_bytes(os.urandom(3000) + name.encode())
        written[name] = (path.stat().st_size, sha256_file(path))
        house.storage.adopt(f"{folder}/{name}", path)
    row = Checkpoint(
        id=f"ckpt_{step}",
        owner=homes.OWNER,
        job_id=job_id,
        state="ready",
        fence=1,
        step=step,
        epoch=1,
        is_best=False,
        metrics={},
        weights_key=f"{folder}/weights.pt",
        weights_bytes=written["weights.pt"][0],
        weights_sha256=written["weights.pt"][1],
        state_key=f"{folder}/state.pt",
        state_bytes=written["state.pt"][0],
        state_sha256=written["state.pt"][1],
        created_at=utc_now(),
    )
    with house.database.write() as session:
        session.add(row)
        session.commit()
    return row


# Everything comes back


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_every_value_of_every_table_comes_back_the_same_on_either_database(
    database_url: str, tmp_path: Path, target: str, request: pytest.FixtureRequest
) -> None:
    settings = Settings(home=tmp_path / "home", database_url=database_url)
    migrations.upgrade(database_url)
    database = open_database(database_url)
    with database.engine.begin() as connection:
        for table in Base.metadata.sorted_tables:
            for mark, nothing in (("1", None), ("2", null()), ("3", JSON.NULL)):
                connection.execute(insert(table).values(odd_row(table, mark, nothing)))
    with database.engine.connect() as connection:
        before = everything(connection)
    database.close()
    make(settings, tmp_path / "all.zip", with_files=False)
    home = tmp_path / "elsewhere"
    url = f"sqlite:///{home / 'other.db'}"
    if target == "postgresql":
        url = fresh_postgresql(request)
    take(Settings(home=home, database_url=url), tmp_path / "all.zip")
    restored = open_database(url)
    with restored.engine.connect() as connection:
        assert everything(connection) == {**before, "workers": []}
    restored.close()


def odd_row(table: Table, mark: str, nothing: Any) -> dict[str, Any]:
    """What is hard to carry over; `nothing`, if it is anything, in every place that may be empty."""
    row: dict[str, Any] = {}
    for column in table.columns:
        if column.foreign_keys or (column.name == "id" and isinstance(column.type, String)):
            row[column.name] = f"id_{mark}"
        elif column.nullable and nothing is not None:
            row[column.name] = nothing if isinstance(column.type, JSON) else None
        else:
            row[column.name] = odd_value(column.type, mark)
    return row


def odd_value(kind: Any, mark: str) -> Any:
    match kind:
        case JSON():
            return {"z": [1, None, "é\u2028\n\\"], "a": 1e-300, "large": 2**70, "mark": mark}
        case UtcDateTime():
            return datetime(2026, 3, 29, 1, 30, 0, 123456, UTC) + timedelta(microseconds=int(mark))
        case Boolean():
            return mark == "1"
        case Float():
            return 0.1 + int(mark)
        case LargeBinary():
            return bytes(range(31)) + mark.encode()
        case Integer():
            return 2**62 + int(mark)
        case _:
            return f"{mark}\t\\N é漢"[: kind.length]


def everything(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """JSON as its text, so that no value and `null` differ."""
    return {
        table.name: sorted(
            (tuple(row) for row in connection.execute(
                select(*(cast(each, Text) if isinstance(each.type, JSON) else each for each in table.columns))
            )),
            key=repr,
        )
        for table in Base.metadata.sorted_tables
    }  # fmt: skip


def test_the_files_that_rows_name_come_back_and_no_others(
    house: House, settings: Settings, tmp_path: Path
) -> None:
    orphan = tmp_path / "orphan"
    orphan.write_text("no row names it")
    house.storage.adopt("jobs/job_gone/1/5/weights.pt", orphan)
    made = make(settings, tmp_path / "all.zip")
    there = elsewhere(tmp_path)
    assert take(there, tmp_path / "all.zip") == made.num_files == 4
    storage = open_storage(there.resolved_storage_url(), there.scratch())
    keys = set(storage.list(""))
    assert keys == set(house.storage.list("")) - {"jobs/job_gone/1/5/weights.pt"}
    assert all(storage.fetch(key).read_bytes() == house.storage.fetch(key).read_bytes() for key in keys)
    assert (tmp_path / "all.zip").stat().st_mode & 0o777 == 0o600


def test_what_is_collected_while_a_backup_is_made_is_in_it_all_the_same(
    house: House, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = homes.read_checkpoints(house, homes.read_jobs(house)[0].id)
    real = rows.snapshot

    def while_a_training_goes_on(url: str, target: Path, told: Any) -> None:
        add_checkpoint(house, before.job_id, step=2)
        real(url, target, told)
        house.storage.delete(before.weights_key)  # its row, in the copy, is ready still
        house.storage.delete(before.state_key)

    monkeypatch.setattr(rows, "snapshot", while_a_training_goes_on)
    made = make(settings, tmp_path / "all.zip")
    assert (made.missing, made.damaged) == ([], [])
    there = elsewhere(tmp_path)
    assert take(there, tmp_path / "all.zip") == 6
    assert sha256_file(there.resolved_home() / "artifacts" / before.weights_key) == before.weights_sha256
    assert not list((settings.resolved_home() / "artifacts").glob(".backup-*"))


# What cannot be whole is refused


def test_a_file_that_a_row_needs_and_that_is_gone_is_named(
    house: House, settings: Settings, tmp_path: Path
) -> None:
    (row,) = homes.read_checkpoints(house, homes.read_jobs(house)[0].id)
    house.storage.delete(row.weights_key)
    with pytest.raises(Refused, match=f"rows need 1 files .*{row.weights_key}"):
        make(settings, tmp_path / "all.zip")
    assert not list(tmp_path.glob("*all.zip*"))
    assert make(settings, tmp_path / "all.zip", allow_missing=True).missing == [row.weights_key]


def test_a_file_that_is_not_what_its_row_says_is_told(
    house: House, settings: Settings, tmp_path: Path
) -> None:
    (row,) = homes.read_checkpoints(house, homes.read_jobs(house)[0].id)
    path = house.storage.fetch(row.weights_key)
    path.write_bytes(b"another" + path.read_bytes()[7:])
    assert make(settings, tmp_path / "all.zip").damaged == [row.weights_key]


def test_a_backup_never_takes_the_place_of_another(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "all.zip").write_text("last week's")
    with pytest.raises(Refused, match="is there already"):
        make(settings, tmp_path / "all.zip")
    assert (tmp_path / "all.zip").read_text() == "last week's"


def test_files_in_a_bucket_are_not_copied_and_the_message_says_what_to_do(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'rows.db'}"
    migrations.upgrade(url)
    settings = Settings(home=tmp_path, database_url=url, storage_url="s3://bucket/prefix")
    with pytest.raises(Refused, match=r"versioning or replication.*--rows-only"):
        make(settings, tmp_path / "all.zip")
    assert make(settings, tmp_path / "all.zip", with_files=False).num_files == 0


@pytest.mark.parametrize("harm", ["a flipped bit", "a cut end", "no backup at all"])
def test_a_damaged_backup_is_refused_before_anything_is_written(
    house: House, settings: Settings, tmp_path: Path, harm: str
) -> None:
    file = tmp_path / "all.zip"
    make(settings, file)
    spoil(file, harm)
    there = elsewhere(tmp_path)
    with pytest.raises(Refused, match=r"damaged at files/|no whole backup"):
        take(there, file)
    assert not (there.resolved_home() / "modelyard.db").exists()
    assert not list((there.resolved_home() / "artifacts").rglob("*.pt"))


def spoil(file: Path, harm: str) -> None:
    whole = bytearray(file.read_bytes())
    match harm:
        case "a flipped bit":
            with zipfile.ZipFile(file) as entries:
                info = next(one for one in entries.infolist() if one.filename.endswith("weights.pt"))
            whole[info.header_offset + 1000] ^= 1
        case "a cut end":
            del whole[len(whole) // 2 :]
        case _:
            whole = bytearray(b"not a zip")
    file.write_bytes(whole)


def test_a_backup_of_a_newer_schema_is_refused(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(settings, tmp_path / "all.zip")
    monkeypatch.setattr(migrations, "revisions", lambda: frozenset({"0001"}))
    with pytest.raises(
        Refused, match=f"has the schema {migrations.head()}, made by Modelyard .* a later one"
    ):
        take(elsewhere(tmp_path), tmp_path / "all.zip")


def test_what_is_there_is_replaced_only_by_force(house: House, settings: Settings, tmp_path: Path) -> None:
    make(settings, tmp_path / "all.zip")
    with house.database.write() as session:
        session.execute(text("UPDATE jobs SET name = 'since'"))
        session.commit()
    with pytest.raises(Refused, match=r"holds rows already.*--force"):
        take(settings, tmp_path / "all.zip")
    assert [job.name for job in homes.read_jobs(house)] == ["since"]
    take(settings, tmp_path / "all.zip", is_forced=True)
    assert [job.name for job in homes.read_jobs(house)] == ["digits"]


def test_a_home_in_use_is_not_restored_into(settings: Settings, tmp_path: Path) -> None:
    make(settings, tmp_path / "all.zip")
    there = elsewhere(tmp_path)
    prepare_home(there.resolved_home())
    with hold(there.resolved_home()), pytest.raises(Refused, match="is in use: stop `modelyard up`"):
        take(there, tmp_path / "all.zip", is_forced=True)


def test_an_older_backup_comes_up_to_the_newest_schema(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    url = settings.resolved_database_url()
    settings.resolved_home().mkdir()
    migrations.upgrade(url)
    make(settings, tmp_path / "new.zip", with_files=False)
    old = tmp_path / "old.db"
    migrations.upgrade(f"sqlite:///{old}", "0004")
    rows.make_self_contained(old)
    with archive.reading(tmp_path / "new.zip") as there, archive.writing(tmp_path / "old.zip") as writer:
        about = archive.About(
            1, "0.0.1", "0004", "sqlite", has_files=False, created_at=there.about.created_at
        )
        writer.add_json(archive.ABOUT, about)
        writer.add(archive.DATABASE, old, lambda _count: None)
    there_now = elsewhere(tmp_path)
    take(there_now, tmp_path / "old.zip")
    assert migrations.current(there_now.resolved_database_url()) == migrations.head()


# From the command line


def test_the_commands_make_and_take_a_backup(house: House, settings: Settings, tmp_path: Path) -> None:
    environment = {**os.environ, "MODELYARD_DATABASE_URL": settings.resolved_database_url()}
    made = run(["backup", "all.zip", "--home", str(settings.home)], tmp_path, environment)
    assert made.returncode == 0, made.stderr
    assert "the rows and 4 files" in made.stdout
    environment["MODELYARD_DATABASE_URL"] = f"sqlite:///{tmp_path / 'taken.db'}"
    taken = run(["restore", "all.zip", "--home", str(tmp_path / "taken")], tmp_path, environment)
    assert taken.returncode == 0, taken.stderr
    assert "restored the rows and 4 files" in taken.stdout
    again = run(["restore", "all.zip", "--home", str(tmp_path / "taken")], tmp_path, environment)
    assert again.returncode == 1
    assert "holds rows already" in again.stderr
    assert "Traceback" not in again.stderr


def run(tokens: list[str], cwd: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    environment = {**environment, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*CLI, *tokens], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_backup_that_is_stopped_leaves_nothing_behind(
    house: House, settings: Settings, tmp_path: Path, number: signal.Signals
) -> None:
    (row,) = homes.read_checkpoints(house, homes.read_jobs(house)[0].id)
    with house.storage.fetch(row.weights_key).open("r+b") as file:
        file.truncate(4 * 2**30)  # holes, which take time to read all the same
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-m", "backups", "backup", str(out / "all.zip")]
    environment = {
        **os.environ,
        "MODELYARD_DATABASE_URL": settings.resolved_database_url(),
        "MODELYARD_HOME": str(settings.home),
    }
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as making:
        deadline = time.monotonic() + 30
        while not any(path.stat().st_size > 2**20 for path in out.glob("*.part")):
            assert making.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        making.send_signal(number)
        _, err = making.communicate(timeout=30)
    assert making.returncode == 130
    assert err == "modelyard: stopped; nothing was written\n"
    assert list(out.iterdir()) == []
    assert not list((settings.resolved_home() / "artifacts").glob(".backup-*"))


def fresh_postgresql(request: pytest.FixtureRequest) -> str:
    """An empty database on the server of this run."""
    server: str = request.getfixturevalue("postgresql_url")
    name = f"restored_{time.monotonic_ns()}"
    database = open_database(server)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    database.close()
    return server.replace("/postgres?", f"/{name}?")
