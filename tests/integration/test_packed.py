"""The packed cache: the decoder's own pixels, computed once, whole or not at all."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import v2

from core.data.images import decode_image
from core.data.packed import Prefix, packed_images
from core.data.pruning import prune
from core.errors import Invalid
from tests.make_data import encode, image_bytes

ROOT = Path(__file__).resolve().parents[2]
SIZE = (9, 7)  # width, height


def as_is(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels


def never(_pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    raise AssertionError("the cache was asked to compute again")


def table_of(images: list[bytes]) -> pa.Table:
    """In record batches of four rows, as a large dataset has several."""
    chunks = [pa.array(images[start : start + 4], pa.binary()) for start in range(0, len(images), 4)]
    return pa.table({"image": pa.chunked_array(chunks)})


def colours(count: int = 10) -> list[bytes]:
    return [image_bytes(seed, SIZE, "RGB") for seed in range(count)]


def packed(
    images: list[bytes], folder: Path, *, mode: Any = "RGB", prefix: Prefix = as_is, key: str = "k"
) -> NDArray[np.uint8]:
    return packed_images(table_of(images), mode, prefix, key, folder, threads=2).array()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_every_row_has_the_pixels_of_the_decoder(mode: Any, tmp_path: Path) -> None:
    images = colours()
    given = packed(images, tmp_path, mode=mode)
    assert given.shape == (10, 1 if mode == "L" else 3, 7, 9)
    assert all(np.array_equal(row, decode_image(data, mode)) for row, data in zip(given, images, strict=True))


def test_png_pixels_are_those_that_were_drawn(tmp_path: Path) -> None:
    drawn = np.random.default_rng(1).integers(0, 256, (5, 7, 9, 3), dtype=np.uint8)
    given = packed([encode(Image.fromarray(pixels)) for pixels in drawn], tmp_path)
    assert np.array_equal(given, drawn.transpose(0, 3, 1, 2))


def test_the_prefix_is_applied_before_packing(tmp_path: Path) -> None:
    resize = v2.Resize([4, 5])
    images = colours(3)
    given = packed(images, tmp_path, prefix=lambda pixels: resize(torch.from_numpy(pixels)).numpy())
    expected = resize(torch.from_numpy(np.stack([decode_image(data, "RGB") for data in images])))
    assert np.array_equal(given, expected.numpy())


def test_a_second_job_reads_what_the_first_computed(tmp_path: Path) -> None:
    first = packed(colours(), tmp_path)
    (file,) = tmp_path.iterdir()
    before = file.stat()
    second = packed(colours(), tmp_path, prefix=never)
    assert np.array_equal(first, second)
    assert (file.stat().st_ino, file.stat().st_size) == (before.st_ino, before.st_size)


def test_reading_marks_the_file_as_used(tmp_path: Path) -> None:
    packed(colours(), tmp_path)
    (file,) = tmp_path.iterdir()
    os.utime(file, (1, 1))
    packed(colours(), tmp_path)
    assert time.time() - file.stat().st_mtime < 60


def test_another_key_is_another_file(tmp_path: Path) -> None:
    packed(colours(2), tmp_path, key="a")
    given = packed(colours(3), tmp_path, key="b")
    assert len(given) == 3
    assert len(files(tmp_path)) == 2


def test_writing_to_the_array_does_not_reach_the_cache(tmp_path: Path) -> None:
    first = packed(colours(), tmp_path)
    expected = first.copy()
    first[:] = 0
    assert np.array_equal(packed(colours(), tmp_path), expected)


@pytest.mark.parametrize("odd", [(9, 8), (1, 1)], ids=["another size", "one pixel, which would be stretched"])
def test_an_image_of_another_shape_is_refused_with_its_row(odd: tuple[int, int], tmp_path: Path) -> None:
    images = [*colours(6), image_bytes(6, odd, "RGB")]
    with pytest.raises(Invalid, match=r"image 6 is \(3, .*the first is \(3, 7, 9\)"):
        packed(images, tmp_path)
    assert files(tmp_path) == []


def test_an_image_that_does_not_decode_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        packed([*colours(5), b"no image"], tmp_path)
    assert files(tmp_path) == []


def test_what_a_killed_process_left_is_never_read(tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
import pyarrow as pa
from core.data.packed import packed_images
from tests.make_data import image_bytes

def dies_in_the_middle(pixels, seen=[]):
    seen.append(1)
    if len(seen) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return pixels

table = pa.table({{"image": pa.array([image_bytes(seed, (9, 7), "RGB") for seed in range(10)])}})
packed_images(table, "RGB", dies_in_the_middle, "k", Path({str(tmp_path)!r}), 2)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=60)
    assert done.returncode == -9, done.stderr
    assert [name[-4:] for name in files(tmp_path)] == [".tmp"]
    given = packed(colours(), tmp_path)
    assert np.array_equal(given[9], decode_image(colours()[9], "RGB"))


def test_a_full_disk_is_an_error_that_leaves_no_file(tmp_path: Path) -> None:
    large = [image_bytes(seed, (200, 200)) for seed in range(20)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10 * 200 * 200, before[1]))
        with pytest.raises(OSError, match="File too large"):
            packed(large, tmp_path, mode="L")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert files(tmp_path) == []


SIZES = [(9, 7), (30, 20), (1, 1), (20, 30), (9, 7), (64, 3)]


def test_images_of_differing_sizes_lie_end_to_end_and_are_read_one_by_one(tmp_path: Path) -> None:
    images = [image_bytes(seed, size, "RGB") for seed, size in enumerate(SIZES)]
    given = packed_images(table_of(images), "RGB", as_is, "k", tmp_path, 2, may_differ=True)
    assert not given.is_one_size
    assert len(given) == len(SIZES)
    for row in [5, 0, 2, 3, 1, 4]:
        assert np.array_equal(given.read(row), decode_image(images[row], "RGB"))
    (file,) = tmp_path.iterdir()
    pixels = sum(3 * width * height for width, height in SIZES)
    assert pixels < file.stat().st_size < pixels + 1024
    with pytest.raises(Invalid, match="differ in size"):
        packed(images, tmp_path)


def test_images_of_one_size_may_be_read_one_by_one_too(tmp_path: Path) -> None:
    given = packed_images(table_of(colours()), "RGB", as_is, "k", tmp_path, 2, may_differ=True)
    assert given.is_one_size
    assert np.array_equal(np.stack([given.read(row) for row in range(10)]), given.array())


def test_images_that_differ_stay_readable_when_their_file_is_pruned(tmp_path: Path) -> None:
    images = [image_bytes(seed, size, "RGB") for seed, size in enumerate(SIZES)]
    given = packed_images(table_of(images), "RGB", as_is, "k", tmp_path, 2, may_differ=True)
    prune(tmp_path, keep_bytes=0)
    assert np.array_equal(given.read(4), decode_image(images[4], "RGB"))


def test_a_file_that_was_cut_short_is_not_read_as_pixels(tmp_path: Path) -> None:
    images = [image_bytes(seed, size, "RGB") for seed, size in enumerate(SIZES)]
    given = packed_images(table_of(images), "RGB", as_is, "k", tmp_path, 2, may_differ=True)
    (file,) = tmp_path.iterdir()
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(OSError, match="ends before image 5"):
        given.read(5)


def test_progress_is_told_and_may_stop_the_packing(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    images = colours(300)
    packed_images(table_of(images), "L", as_is, "k", tmp_path, 2, progress=lambda *at: told.append(at))
    assert told == [(128, 300), (256, 300), (300, 300)]

    def stops(done: int, _total: int) -> None:
        if done > 200:
            raise InterruptedError("enough")

    with pytest.raises(InterruptedError):
        packed_images(table_of(images), "L", as_is, "other", tmp_path, 2, progress=stops)
    assert len(files(tmp_path)) == 1


def packed_beside(folder: Path, prefix: Prefix, told: list[int]) -> threading.Thread:
    def run() -> None:
        packed_images(
            table_of(colours()), "RGB", prefix, "k", folder, 1, progress=lambda done, _: told.append(done)
        )

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_of_two_jobs_that_miss_at_once_one_computes_and_the_other_waits(tmp_path: Path) -> None:
    began, may_go_on, computed = threading.Event(), threading.Event(), []

    def slow(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        computed.append(1)
        began.set()
        assert may_go_on.wait(10)
        return pixels

    first = packed_beside(tmp_path, slow, [])
    assert began.wait(10)
    told: list[int] = []
    second = packed_beside(tmp_path, never, told)
    while len(told) < 3:  # it waits, and its job can be stopped meanwhile
        time.sleep(0.01)
    may_go_on.set()
    first.join(10)
    second.join(10)
    assert len(computed) == 10
    assert set(told) == {0}
    assert len(files(tmp_path)) == 1
    assert np.array_equal(packed(colours(), tmp_path, prefix=never)[7], decode_image(colours()[7], "RGB"))


def test_the_one_that_waits_computes_itself_where_the_other_fails(tmp_path: Path) -> None:
    began, may_go_on = threading.Event(), threading.Event()

    def fails(_pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        began.set()
        assert may_go_on.wait(10)
        raise Invalid("its own error")

    def run() -> None:
        with pytest.raises(Invalid, match="its own error"):
            packed(colours(), tmp_path, prefix=fails)

    first = threading.Thread(target=run)
    first.start()
    assert began.wait(10)
    told: list[int] = []
    second = packed_beside(tmp_path, as_is, told)
    while not told:
        time.sleep(0.01)
    may_go_on.set()
    first.join(10)
    second.join(10)
    assert told[-1] == 10
    assert np.array_equal(packed(colours(), tmp_path, prefix=never)[7], decode_image(colours()[7], "RGB"))


def test_pruning_keeps_what_was_used_last_within_the_bound(tmp_path: Path) -> None:
    for age, key in enumerate(["new", "middle", "old"]):
        packed(colours(), tmp_path, key=key)
        (file,) = [path for path in tmp_path.iterdir() if path.stat().st_mtime > 1e6]
        os.utime(file, (1e6 - age, 1e6 - age))
    size = max(path.stat().st_size for path in tmp_path.iterdir())
    newest = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime)
    prune(tmp_path, keep_bytes=3 * size)
    assert len(files(tmp_path)) == 3
    prune(tmp_path, keep_bytes=2 * size - 1)
    assert files(tmp_path) == [newest.name]
    prune(tmp_path / "none", keep_bytes=0)


def test_a_job_keeps_its_pixels_when_its_file_is_pruned(tmp_path: Path) -> None:
    given = packed(colours(), tmp_path)
    prune(tmp_path, keep_bytes=0)
    assert files(tmp_path) == []
    assert np.array_equal(given[3], decode_image(colours()[3], "RGB"))
