"""From a version's row to its files: fetched, and compared with what was registered."""

from core.db.models import Checkpoint, Version
from core.errors import Gone, ModelyardError
from core.storage import Storage
from core.storage.durable import Damaged, sha256_file, verify
from service.inference.files import VersionFiles


def fetch_version(storage: Storage, version: Version, weights: Checkpoint) -> VersionFiles:
    """Blocks for the time of reading. Raises Gone where the files are no longer there, and a plain
    ModelyardError where they are other ones than were registered."""
    name = f"{version.model}@{version.version}"
    try:
        manifest_path = storage.fetch(version.manifest_key)
        weights_path = storage.fetch(weights.weights_key)
    except FileNotFoundError as error:
        raise Gone(f"The files of {name} are no longer there.", code="collected") from error
    try:
        if sha256_file(manifest_path) != version.manifest_sha256:
            raise Damaged(f"{manifest_path.name}: its sha256 is not the registered one")
        verify(weights_path, weights.weights_bytes, weights.weights_sha256)
    except Damaged as error:
        raise ModelyardError(f"{name} cannot be loaded: {error}.", code="version_damaged") from error
    return VersionFiles(name, manifest_path, weights_path)
