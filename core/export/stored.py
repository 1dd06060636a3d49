"""Where exported weights are kept: made once, then a plain file. No torch.

A key ends in the SHA-256 of what it holds. An export of a checkpoint says of itself which version was
registered from it, so what was made before that is another file.
"""

import re

from core.storage import Storage
from modelyard.specs import WeightsFormat

_ROOT = "exports"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def key_of(checkpoint_id: str, version_id: str | None, kind: WeightsFormat, sha256: str) -> str:
    return f"{_folder(checkpoint_id, version_id, kind)}/{sha256}"


def sha256_of(key: str) -> str:
    return key.rpartition("/")[2]


def find(storage: Storage, checkpoint_id: str, version_id: str | None, kind: WeightsFormat) -> str | None:
    """Its key. Two services may have made it at once: all take the same of the two."""
    keys = storage.list(_folder(checkpoint_id, version_id, kind))
    return min((key for key in keys if _SHA256.fullmatch(sha256_of(key))), default=None)


def exported(storage: Storage) -> set[str]:
    """The checkpoints that have exports."""
    return {key.split("/")[1] for key in storage.list(_ROOT)}


def forget(storage: Storage, checkpoint_id: str) -> None:
    """All exports of a checkpoint."""
    for key in list(storage.list(f"{_ROOT}/{checkpoint_id}")):
        storage.delete(key)


def _folder(checkpoint_id: str, version_id: str | None, kind: WeightsFormat) -> str:
    return f"{_ROOT}/{checkpoint_id}/{version_id or 'unregistered'}/{kind}"
