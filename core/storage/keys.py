"""Where a key stands below a folder."""

from pathlib import Path


def path_below(root: Path, key: str) -> Path:
    """`root` is resolved. Raises ValueError for a key that leads out of it."""
    path = (root / key).resolve()
    if not path.is_relative_to(root):
        raise ValueError(f"a storage key stays below its root, got {key!r}")
    return path


def suspects_key(job_id: str, fence: int) -> str:
    """Where the attempt that ended a job left the rows that its net doubts."""
    return f"jobs/{job_id}/{fence}/suspects.json"


def data_key(dataset_id: str, fence: int) -> str:
    """Where the attempt that read an upload left its rows."""
    return f"datasets/{dataset_id}/{fence}/data.arrow"


def batch_folder(batch_id: str) -> str:
    """Where a batch prediction has its parts, and its two files in the end."""
    return f"batch-predictions/{batch_id}"
