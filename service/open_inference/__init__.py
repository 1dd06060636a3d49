"""The Open Inference Protocol V2 over REST, as Triton, KServe and `tritonclient[http]` speak it.

tensors.py       one tensor between the wire and numpy; no HTTP, no torch
compression.py   gzip and deflate, both ways, bounded
requests.py      the body of an infer request: JSON, with or without raw tensors after it
replies.py       the body of its answer
inference.py     from an infer request to its answer
describe.py      metadata, configuration, statistics and the repository's index of versions
refusals.py      the protocol's own shape of errors
room.py          how many bytes of request bodies there may be at once
"""
