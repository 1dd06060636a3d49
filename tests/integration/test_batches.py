"""Rows in batches: which, in which order, which make one step, and with which pixels."""

import gc
import resource
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.data.images import decode_image
from core.errors import Invalid
from core.nets.steps import batch_bounds, steps_per_epoch
from core.nets.transforms import Pipeline, resolve
from tests.photos import source_of_photos, write_photos
from workers.batches import Batches
from workers.loaders import open_rows

CPU = torch.device("cpu")


def numbered(rows: int, **fields: Any) -> Batches:
    """Row n holds the number n, so that a batch tells which rows are in it."""
    values = torch.arange(rows, dtype=torch.float32)
    fields = {"batch_size": 4, "seed": 7, **fields}
    return Batches((values[:, None],), values, torch.arange(rows), None, device=CPU, **fields)


def rows_of_epoch(batches: Batches, epoch: int, first_batch: int = 0) -> list[list[int]]:
    return [batch.targets.int().tolist() for batch in batches.of_epoch(epoch, first_batch)]


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    batches = numbered(50, shuffle=True)
    later = rows_of_epoch(batches, 3)
    torch.manual_seed(99)
    rows_of_epoch(batches, 0)
    assert rows_of_epoch(numbered(50, shuffle=True), 3) == later
    assert rows_of_epoch(batches, 4) != later
    assert rows_of_epoch(numbered(50, shuffle=True, seed=8), 3) != later


def test_without_shuffle_rows_keep_their_order() -> None:
    assert rows_of_epoch(numbered(6), 5) == [[0, 1, 2, 3], [4, 5]]


@given(st.integers(1, 60), st.integers(1, 20), st.booleans(), st.booleans(), st.integers(0, 5))
def test_every_row_comes_once_an_epoch_and_the_count_of_batches_is_known_before(
    rows: int, batch_size: int, drop_last: bool, merge_single: bool, epoch: int
) -> None:
    options = {"drop_last": drop_last, "merge_single": merge_single}
    batches = numbered(rows, batch_size=batch_size, shuffle=True, **options)
    found = rows_of_epoch(batches, epoch)
    kept = rows - rows % batch_size if drop_last and rows >= batch_size else rows
    seen = Counter(row for batch in found for row in batch)
    assert len(seen) == kept
    assert set(seen.values()) == {1}
    expected = steps_per_epoch(rows, batch_size, drop_last=drop_last, has_batch_norm=merge_single)
    assert len(batches) == len(found) == expected


def test_batch_norm_never_sees_a_last_batch_of_one() -> None:
    assert [len(batch) for batch in rows_of_epoch(numbered(9, merge_single=True), 0)] == [4, 5]
    assert [len(batch) for batch in rows_of_epoch(numbered(9), 0)] == [4, 4, 1]
    assert [len(batch) for batch in rows_of_epoch(numbered(10, merge_single=True), 0)] == [4, 4, 2]


def test_a_resumed_epoch_is_the_tail_of_the_unbroken_one_with_random_transforms() -> None:
    images = torch.randint(0, 256, (23, 1, 8, 8), dtype=torch.uint8)
    pipeline = Pipeline.from_spec(resolve([{"type": "RandomRotation", "degrees": [-30.0, 30.0]}]))
    batches = Batches((images,), torch.arange(23), torch.arange(23), pipeline, 5, 11, CPU, shuffle=True)
    unbroken = list(batches.of_epoch(2))
    torch.manual_seed(1234)
    resumed = list(batches.of_epoch(2, first_batch=3))
    assert len(resumed) == 2
    for expected, got in zip(unbroken[3:], resumed, strict=True):
        assert torch.equal(expected.inputs[0], got.inputs[0])
        assert torch.equal(expected.targets, got.targets)


def test_a_row_is_augmented_alike_whoever_is_in_its_batch_and_otherwise_in_another_epoch() -> None:
    images = torch.randint(0, 256, (12, 1, 8, 8), dtype=torch.uint8)
    pipeline = Pipeline.from_spec(resolve([{"type": "RandomRotation", "degrees": [-90.0, 90.0]}]))

    def rows(batch_size: int, epoch: int) -> torch.Tensor:
        batches = Batches((images,), torch.arange(12), torch.arange(12), pipeline, batch_size, 11, CPU)
        return torch.cat([batch.inputs[0] for batch in batches.of_epoch(epoch)])

    assert torch.equal(rows(3, 0), rows(12, 0))
    assert not torch.equal(rows(12, 0), rows(12, 1))


@given(
    st.integers(1, 60), st.integers(1, 12), st.integers(1, 5), st.integers(1, 3), st.booleans(), st.booleans()
)
def test_the_batches_of_a_step_weigh_as_many_rows_as_they_have(
    rows: int, batch_size: int, accumulate: int, world: int, merge_single: bool, drop_last: bool
) -> None:
    options: dict[str, Any] = {"merge_single": merge_single, "drop_last": drop_last}
    fields: dict[str, Any] = {"batch_size": batch_size, "shuffle": True, "accumulate": accumulate, **options}
    bounds = batch_bounds(rows, batch_size, has_batch_norm=merge_single, drop_last=drop_last, devices=world)
    if min(end - start for start, end in bounds) < world:
        with pytest.raises(Invalid, match=r"each of \d devices takes one at least"):
            numbered(rows, world=world, **fields).steps  # noqa: B018  # known before an epoch begins
        return
    ranks = [list(numbered(rows, rank=rank, world=world, **fields).of_epoch(1)) for rank in range(world)]
    alone = numbered(rows, world=world, **fields)
    windows: list[list[tuple[Any, ...]]] = []
    for batches in zip(*ranks, strict=True):
        if batches[0].begins_step:
            windows.append([])
        windows[-1].append(batches)
        if batches[0].ends_step:
            total = sum(batch.rows for window in windows[-1] for batch in window)
            for window in windows[-1]:
                for batch in window:
                    # The mean over the ranks of share times a mean over rows: each row weighs one over all.
                    assert batch.share / batch.rows / world == pytest.approx(1 / total)
    assert (
        len(windows)
        == alone.steps
        == steps_per_epoch(
            rows,
            batch_size,
            has_batch_norm=merge_single,
            drop_last=drop_last,
            accumulate=accumulate,
            devices=world,
        )
    )
    assert all(len(window) == accumulate for window in windows[:-1])


def test_ranks_share_the_batches_that_one_process_would_take() -> None:
    whole = rows_of_epoch(numbered(50, batch_size=12, shuffle=True), 3)
    pieces = [rows_of_epoch(numbered(50, batch_size=12, shuffle=True, rank=r, world=3), 3) for r in range(3)]
    joined = [first + second + third for first, second, third in zip(*pieces, strict=True)]
    # The last two rows are fewer than the ranks: they join the batch before.
    assert joined == [*whole[:3], whole[3] + whole[4]]
    assert [[len(batch) for batch in piece] for piece in pieces] == [[4, 4, 4, 4], [4, 4, 4, 5], [4, 4, 4, 5]]


@given(st.integers(1, 60), st.integers(1, 20))
def test_the_pieces_of_a_batch_differ_by_one_row_at_most_and_weigh_what_it_does(
    rows: int, rows_at_once: int
) -> None:
    (whole,) = numbered(rows, batch_size=rows, shuffle=True).of_epoch(1)
    pieces = whole.pieces(rows_at_once)
    assert len(pieces) == -(-rows // rows_at_once)
    assert max(piece.rows for piece in pieces) <= rows_at_once
    assert max(piece.rows for piece in pieces) - min(piece.rows for piece in pieces) <= 1
    assert torch.equal(torch.cat([piece.index for piece in pieces]), whole.index)
    assert sum(piece.share * float(piece.targets.mean()) for piece in pieces) == pytest.approx(
        whole.share * float(whole.targets.mean())
    )


def test_a_batch_tells_its_rows_numbers_in_the_dataset() -> None:
    batches = Batches((torch.arange(20.0)[:, None],), torch.arange(20), torch.arange(5, 15), None, 4, 3, CPU)
    for batch in batches.of_epoch(0):
        assert torch.equal(batch.index, batch.targets)
        assert torch.equal(batch.index.float(), batch.inputs[0][:, 0])


def test_images_lie_channels_last_where_asked_with_the_same_numbers() -> None:
    images = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8)
    pipeline = Pipeline.from_spec(resolve([{"type": "RandomHorizontalFlip"}]))
    fields: dict[str, Any] = {"shuffle": True}
    usual, last = (
        next(
            Batches(
                (images,),
                torch.arange(12),
                torch.arange(12),
                pipeline,
                5,
                1,
                CPU,
                channels_last=way,
                **fields,
            ).of_epoch(0)
        ).inputs[0]
        for way in (False, True)
    )
    assert usual.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(usual, last)


# Images that differ in size


CROP: list[dict[str, Any]] = [{"type": "RandomHorizontalFlip"}, {"type": "RandomResizedCrop", "size": 16}]


def test_photos_of_differing_sizes_are_cropped_as_they_lie_and_evaluated_in_one_size(tmp_path: Path) -> None:
    manifest = write_photos(tmp_path, 40)
    source = source_of_photos(tmp_path, manifest, CROP)
    rows = open_rows(source)
    assert rows.eval_inputs[0].shape == (40, 3, 16, 16)
    batches = Batches(rows.train_inputs, rows.targets, rows.train, source.train, 8, 5, CPU, shuffle=True)
    assert source.train is not None
    table = pa.ipc.open_file(str(source.arrow)).read_all()
    for batch in batches.of_epoch(2):
        photos = [decode_image(table.column("image")[row].as_py(), "RGB") for row in batch.index.tolist()]
        alone = [
            source.train.apply_rest([torch.from_numpy(photo)], 5, 2, batch.index[place : place + 1])
            for place, photo in enumerate(photos)
        ]
        assert torch.equal(batch.inputs[0], torch.cat(alone))


def test_the_rest_of_an_epoch_of_photos_is_its_tail_and_no_thread_stays(tmp_path: Path) -> None:
    source = source_of_photos(tmp_path, write_photos(tmp_path, 40), CROP)
    rows = open_rows(source)
    before = threading.active_count()
    batches = Batches(rows.train_inputs, rows.targets, rows.train, source.train, 8, 5, CPU, shuffle=True)
    whole = [batch.inputs[0] for batch in batches.of_epoch(1)]
    for batch in batches.of_epoch(1, first_batch=2):
        assert torch.equal(batch.inputs[0], whole[2])
        break
    del batch
    gc.collect()
    assert threading.active_count() == before


def test_photos_of_more_pixels_than_are_kept_are_decoded_each_time_to_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of_photos(tmp_path, write_photos(tmp_path, 30), [{"type": "Resize", "size": 20}, *CROP])

    def first_batch() -> torch.Tensor:
        rows = open_rows(source)
        batches = Batches(rows.train_inputs, rows.targets, rows.train, source.train, 8, 5, CPU)
        return next(batches.of_epoch(0)).inputs[0]

    monkeypatch.setattr("workers.inputs.MAX_PACKED_BYTES", 3 * 20 * 20 * 30)
    decoded, before = first_batch(), len(list((tmp_path / "cache").iterdir()))
    monkeypatch.undo()
    assert torch.equal(decoded, first_batch())
    assert len(list((tmp_path / "cache").iterdir())) == before + 1


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_memory_does_not_grow_with_the_photos_of_an_epoch(tmp_path: Path) -> None:
    manifest = write_photos(tmp_path, 300, low=(300, 300), high=(340, 360))
    source = source_of_photos(tmp_path, manifest, CROP)
    rows = open_rows(source)
    pixels = 3 * sum(height * width * count for height, width, count in manifest.image_sizes)
    batches = Batches(rows.train_inputs, rows.targets, rows.train, source.train, 8, 5, CPU, shuffle=True)
    epoch = batches.of_epoch(0)
    for _ in range(3):  # the threads, and what the allocator keeps
        next(epoch)
    before = resident_bytes()
    for _ in epoch:
        pass
    assert pixels > 80e6
    assert resident_bytes() - before < pixels / 4
