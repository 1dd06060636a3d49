"""How many optimizer steps an epoch takes: the count of the loader's batches, known before it runs."""


def steps_per_epoch(rows: int, batch_size: int, *, drop_last: bool, has_batch_norm: bool) -> int:
    """With batch norm a last batch of one row is merged into the one before: one row has no variance.
    `drop_last` never drops the only batch."""
    if drop_last and rows >= batch_size:
        rows -= rows % batch_size
    steps = -(-rows // batch_size)
    left = rows - (steps - 1) * batch_size
    return steps - 1 if has_batch_norm and steps > 1 and left == 1 else steps
