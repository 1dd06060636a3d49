"""What was measured: of a server under a load, and of a net alone."""

import msgspec


class Measured(msgspec.Struct, frozen=True):
    """Of one server under one load. Latencies are those that the client saw."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float


class Forward(msgspec.Struct, frozen=True):
    """Scores of each picture and of each JPEG by plain PyTorch; images a second by batch size, of each way of
    running the net."""

    scores: list[list[float]]
    scores_of_jpegs: list[list[float]]
    images_per_s: dict[str, dict[int, float]]

    def best(self, way: str) -> float:
        return max(self.images_per_s[way].values())


def top(scores: list[float]) -> int:
    """The class of the highest score."""
    return max(range(len(scores)), key=scores.__getitem__)
