"""One contract for both storages: a local folder, and an object store spoken to over a socket."""

import os
import tempfile
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from core.storage import Storage, open_storage
from core.storage.durable import Damaged, describe, verify

SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """The address of an S3 with one bucket, `bucket`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT")).close()
    yield url
    server.stop()


@pytest.fixture
def s3(object_store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment that reaches the object store."""
    environment = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": object_store,
        "AWS_ALLOW_HTTP": "true",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return object_store


@pytest.fixture(params=["file", "s3"])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"file://{tmp_path}/a%20folder"
    request.getfixturevalue("s3")
    return f"s3://bucket/{tmp_path.name}/prefix"


@pytest.fixture
def storage(storage_url: str, tmp_path: Path) -> Storage:
    return open_storage(storage_url, tmp_path / "cache")


def scratch_file(tmp_path: Path, content: bytes) -> Path:
    descriptor, name = tempfile.mkstemp(dir=tmp_path)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return Path(name)


def test_an_adopted_file_is_read_back_and_gone_from_scratch(storage: Storage, tmp_path: Path) -> None:
    path = scratch_file(tmp_path, b"weights")
    storage.adopt("jobs/j/1/10/weights.pt", path)
    assert storage.fetch("jobs/j/1/10/weights.pt").read_bytes() == b"weights"
    assert not path.exists()


@pytest.mark.parametrize("size", [0, 20 * 1024 * 1024 + 1], ids=["empty", "several pieces"])
def test_a_file_of_any_size_comes_back_as_it_was(storage: Storage, tmp_path: Path, size: int) -> None:
    path = scratch_file(tmp_path, os.urandom(size))
    expected = describe(path)
    storage.adopt("datasets/d/source", path)
    verify(storage.fetch("datasets/d/source"), expected.size, expected.sha256)


def test_another_process_reads_what_was_adopted(storage: Storage, storage_url: str, tmp_path: Path) -> None:
    storage.adopt("versions/v/manifest.json", scratch_file(tmp_path, b"{}"))
    other = open_storage(storage_url, tmp_path / "another cache")
    assert other.fetch("versions/v/manifest.json").read_bytes() == b"{}"


def test_what_is_not_there_is_a_file_not_found_error(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.fetch("jobs/none")


def test_a_folder_is_not_a_file(storage: Storage, tmp_path: Path) -> None:
    storage.adopt("jobs/j/weights.pt", scratch_file(tmp_path, b"1"))
    with pytest.raises(FileNotFoundError):
        storage.fetch("jobs/j")


def test_a_deleted_key_is_gone_everywhere(storage: Storage, tmp_path: Path) -> None:
    storage.adopt("jobs/j/1/weights.pt", scratch_file(tmp_path, b"1"))
    storage.fetch("jobs/j/1/weights.pt")
    storage.delete("jobs/j/1/weights.pt")
    assert list(storage.list("jobs/j")) == []
    with pytest.raises(FileNotFoundError):
        storage.fetch("jobs/j/1/weights.pt")


def test_deleting_what_is_not_there_is_no_error(storage: Storage, tmp_path: Path) -> None:
    storage.adopt("jobs/j/kept", scratch_file(tmp_path, b"1"))
    storage.delete("jobs/j/none")
    storage.delete("nothing/at/all")
    assert storage.fetch("jobs/j/kept").read_bytes() == b"1"


def test_a_list_names_the_whole_keys_below_a_folder_and_no_others(storage: Storage, tmp_path: Path) -> None:
    keys = ["datasets/d1/2/data.arrow", "datasets/d1/2/manifest.json", "datasets/d1/source"]
    for key in [*keys, "datasets/d10/source", "jobs/d1/source"]:
        storage.adopt(key, scratch_file(tmp_path, b"1"))
    assert sorted(storage.list("datasets/d1")) == keys
    assert sorted(storage.list("datasets/d1/2")) == keys[:2]
    assert list(storage.list("datasets/none")) == []
    assert all(storage.fetch(key).is_file() for key in storage.list("datasets"))


@pytest.mark.parametrize("key", ["../outside", "jobs/../../outside", "/etc/hostname"])
def test_a_key_does_not_leave_the_root(storage: Storage, tmp_path: Path, key: str) -> None:
    path = scratch_file(tmp_path, b"1")
    outside = tmp_path / "outside"
    outside.write_bytes(b"kept")
    for act in (lambda: storage.adopt(key, path), lambda: storage.delete(key), lambda: storage.fetch(key)):
        with pytest.raises(ValueError, match=r"stays below its root"):
            act()
    assert outside.read_bytes() == b"kept"
    assert path.exists()


def test_an_adopt_over_a_key_replaces_it_whole(storage: Storage, tmp_path: Path) -> None:
    storage.adopt("jobs/j/a", scratch_file(tmp_path, b"a long first content"))
    storage.adopt("jobs/j/a", scratch_file(tmp_path, b"second"))
    assert storage.fetch("jobs/j/a").read_bytes() == b"second"


def test_keys_of_many_jobs_come_and_go_at_once(storage: Storage, tmp_path: Path) -> None:
    def come_and_go(number: int) -> None:
        for step in range(8):
            key = f"jobs/{number}/1/{step}/weights.pt"
            storage.adopt(key, scratch_file(tmp_path, b"1"))
            storage.delete(key)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, range(4)))
    assert list(storage.list("jobs")) == []


@pytest.mark.usefixtures("s3")
def test_two_prefixes_of_a_bucket_do_not_see_each_other(tmp_path: Path) -> None:
    first = open_storage(f"s3://bucket/{tmp_path.name}/a", tmp_path / "cache-a")
    second = open_storage(f"s3://bucket/{tmp_path.name}/b", tmp_path / "cache-b")
    whole = open_storage("s3://bucket", tmp_path / "cache-whole")
    first.adopt("jobs/j", scratch_file(tmp_path, b"1"))
    assert list(first.list("jobs")) == ["jobs/j"]
    assert list(second.list("jobs")) == []
    with pytest.raises(FileNotFoundError):
        second.fetch("jobs/j")
    assert whole.fetch(f"{tmp_path.name}/a/jobs/j").read_bytes() == b"1"


def test_a_fetched_object_is_kept_and_a_failed_fetch_leaves_nothing(s3: str, tmp_path: Path) -> None:
    storage = open_storage(f"s3://bucket/{tmp_path.name}", tmp_path / "cache")
    storage.adopt("jobs/j/a", scratch_file(tmp_path, b"1"))
    first = storage.fetch("jobs/j/a")
    written = first.stat().st_mtime_ns
    assert storage.fetch("jobs/j/a") == first
    assert first.stat().st_mtime_ns == written
    with pytest.raises(FileNotFoundError):
        storage.fetch("jobs/j/none")
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == ["a"]


def test_a_deleted_key_leaves_no_empty_folders_below_the_first(tmp_path: Path) -> None:
    storage = open_storage(f"file://{tmp_path}/root", tmp_path / "cache")
    storage.adopt("jobs/j/1/10/weights.pt", scratch_file(tmp_path, b"1"))
    storage.delete("jobs/j/1/10/weights.pt")
    assert [path.name for path in (tmp_path / "root").rglob("*")] == ["jobs"]


def test_a_root_behind_a_symbolic_link_lists_its_keys(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    storage = open_storage(f"file://{tmp_path}/link", tmp_path / "cache")
    storage.adopt("jobs/j", scratch_file(tmp_path, b"1"))
    assert list(storage.list("jobs")) == ["jobs/j"]


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path]:
    if not SHARED_MEMORY.is_dir() or os.stat(SHARED_MEMORY).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("no second file system to adopt from")
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as folder:
        yield Path(folder)


def test_a_file_is_adopted_from_another_file_system(tmp_path: Path, other_file_system: Path) -> None:
    storage = open_storage(f"file://{tmp_path}/root", tmp_path / "cache")
    path = scratch_file(other_file_system, b"from afar")
    storage.adopt("jobs/j/a", path)
    assert storage.fetch("jobs/j/a").read_bytes() == b"from afar"
    assert list(storage.list("jobs")) == ["jobs/j/a"]
    assert not path.exists()


def test_a_copy_that_fails_leaves_the_scratch_file_and_no_half_of_it(
    tmp_path: Path, other_file_system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(source: Path, target: Path) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:3])
        raise OSError(28, "No space left on device")

    storage = open_storage(f"file://{tmp_path}/root", tmp_path / "cache")
    path = scratch_file(other_file_system, b"from afar")
    monkeypatch.setattr("shutil.copyfile", full_disk)
    with pytest.raises(OSError, match="No space left"):
        storage.adopt("jobs/j/a", path)
    assert path.read_bytes() == b"from afar"
    assert list(storage.list("jobs")) == []


def test_a_damaged_file_is_found_by_its_size_or_its_hash(tmp_path: Path) -> None:
    path = scratch_file(tmp_path, b"weights")
    stored = describe(path)
    path.write_bytes(b"weightz")
    with pytest.raises(Damaged, match="sha256"):
        verify(path, stored.size, stored.sha256)
    path.write_bytes(b"weight")
    with pytest.raises(Damaged, match="expected 7 bytes, got 6"):
        verify(path, stored.size, stored.sha256)


@pytest.mark.parametrize("url", ["gs://bucket", "http://host/bucket", "bucket"])
def test_a_storage_of_another_kind_is_refused_with_the_settings_name(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="MODELYARD_STORAGE_URL"):
        open_storage(url, tmp_path)
