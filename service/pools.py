"""Which queue a job stands in."""


def pool_of(device: str, known: set[str]) -> str:
    """`auto` goes to a GPU where a worker with one is known."""
    return "gpu" if device == "cuda" or (device == "auto" and "gpu" in known) else "cpu"
