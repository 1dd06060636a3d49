"""How an epoch's rows fall into batches and its batches into optimizer steps: known before it runs."""


def least_rows(*, has_batch_norm: bool, devices: int = 1) -> int:
    """How few rows a batch may have: one for each device, and two where there is batch norm, as one row has
    no variance."""
    return devices * (2 if has_batch_norm else 1)


def batch_bounds(
    rows: int, batch_size: int, *, drop_last: bool, has_batch_norm: bool, devices: int = 1
) -> list[tuple[int, int]]:
    """Where each batch starts and ends. A last batch of fewer rows than `least_rows` is merged into the one
    before; `drop_last` never drops the only batch."""
    if drop_last and rows >= batch_size:
        rows -= rows % batch_size
    bounds = [(start, min(start + batch_size, rows)) for start in range(0, rows, batch_size)]
    least = least_rows(has_batch_norm=has_batch_norm, devices=devices)
    if len(bounds) > 1 and bounds[-1][1] - bounds[-1][0] < least:
        bounds[-2:] = [(bounds[-2][0], bounds[-1][1])]
    return bounds


def steps_per_epoch(
    rows: int,
    batch_size: int,
    *,
    drop_last: bool,
    has_batch_norm: bool,
    accumulate: int = 1,
    devices: int = 1,
) -> int:
    """Of `accumulate` batches each, the last of those that are left: `batch_bounds`, counted."""
    if drop_last and rows >= batch_size:
        rows -= rows % batch_size
    batches = -(-rows // batch_size)
    left = rows - (batches - 1) * batch_size
    if batches > 1 and left < least_rows(has_batch_norm=has_batch_norm, devices=devices):
        batches -= 1
    return -(-batches // accumulate)
