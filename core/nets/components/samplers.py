"""Samplers of torch.utils.data: which training rows an epoch goes through, and in which order."""

from typing import Annotated

from msgspec import Meta
from torch.utils.data import sampler

from core.nets.components.family import Family, Override

SEQUENTIAL = "SequentialSampler"
RANDOM = "RandomSampler"
WEIGHTED = "WeightedRandomSampler"
SUBSET = "SubsetRandomSampler"

#: The word for weights that give every class the same share.
BALANCED = "balanced"

MAX_INDICES = 100_000

FAMILY = Family(
    name="sampler",
    namespace=sampler,
    types=(SEQUENTIAL, RANDOM, WEIGHTED, SUBSET),
    absent={
        "Sampler": "it is what samplers inherit from",
        "BatchSampler": "batch_size and drop_last say how rows are put into batches",
        "DistributedSampler": "the trainer gives each device its part of the rows",
    },
    left_out={
        "*.data_source": "the rows are the training rows",
        "*.generator": "the order is a function of the trainer's seed and the epoch",
    },
    overrides={
        "WeightedRandomSampler.weights": Override(
            'the signature takes a number a row; here it is the column that holds them, or "balanced": one '
            "over the rows of its class",
            Annotated[str, Meta(max_length=200, title=f'"{BALANCED}" or the name of a column')],
        ),
        "WeightedRandomSampler.num_samples": Override(
            "left out it is the number of training rows", int | None, None
        ),
        "SubsetRandomSampler.indices": Override(
            "places among the training rows, from 0",
            Annotated[
                list[Annotated[int, Meta(ge=0, le=2**31 - 1)]], Meta(min_length=1, max_length=MAX_INDICES)
            ],
        ),
    },
    least={"num_samples": 1},
)
