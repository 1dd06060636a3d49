"""What of a model is in the memory of this process."""

from collections.abc import Sequence

from modelyard.specs import LoadedVersion, Unloaded
from service.api.catalogue import Listed
from service.inference.cache import Residence
from service.parts import Parts


def loaded_versions(parts: Parts, listed: Sequence[Listed]) -> list[LoadedVersion]:
    """Those of them that are loaded, or are on their way; in their order."""
    found = []
    for one in listed:
        served = parts.models.peek(one.id)
        if served is not None:
            waiting, in_flight = served.batcher.waiting_rows, served.batcher.in_flight_rows
            found.append(LoadedVersion(one.version, "loaded", served.size_bytes, waiting, in_flight))
        elif parts.models.residence(one.id) is Residence.LOADING:
            found.append(LoadedVersion(one.version, "loading", 0, 0, 0))
    return found


async def unload(parts: Parts, model: str, listed: Sequence[Listed]) -> Unloaded:
    """All of them. Requests under way are answered first; the next one loads what it needs again."""
    gone = [one for one in loaded_versions(parts, listed) if one.state == "loaded"]
    returned_bytes = await parts.models.unload(one.id for one in listed)
    return Unloaded(model, [one.version for one in gone], sum(one.bytes for one in gone), returned_bytes)
