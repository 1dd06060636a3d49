"""`/metrics` as one page of text."""

import asyncio

from service.metrics import families, process
from service.metrics.text import render
from service.parts import Parts


async def page(parts: Parts, owner: str | None) -> bytes:
    """What has a model's name in it is of this owner's alone, or of everybody's for None. The rest is of the
    whole service. The numbers are taken on the event loop, which writes them; the text is made beside it."""
    stored = await parts.counts.read()
    loaded = parts.models.loaded()
    found = [
        *families.of_asked(
            (name, counted) for name, counted in parts.statistics.all() if owner in (None, name.owner)
        ),
        *families.of_loaded(served for served in loaded if owner in (None, served.name.owner)),
        *families.of_cache(len(loaded), parts.models.size_bytes, parts.settings.model_cache_bytes),
        *families.of_traffic(parts.traffic),
        *families.of_neighbours(stored is not None, parts.sweeper.broker),
        *(families.of_stored(stored) if stored is not None else []),
        *process.families(),
    ]
    return await asyncio.to_thread(render, found)
