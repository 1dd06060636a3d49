"""What the serving benchmark judges, and how it reads replies: no server, no load."""

import json
import struct

import numpy as np
import pytest

from benchmarks.serving.asking import v2_binary
from benchmarks.serving.report import Costs, Races, cost_verdict, race_verdicts
from benchmarks.serving.resident import Curve
from benchmarks.serving.results import Forward, Measured
from benchmarks.serving.sides import Kind

MB = 1_000_000
RATES: dict[Kind, float] = {
    "ours": 6000,
    "ours-v2": 9000,
    "fastapi": 1200,
    "litestar": 3000,
    "litserve": 1000,
    "mlserver": 1900,
}


def races(**rates: float) -> Races:
    """Three rounds a side, the middle one of the given rate; latencies are those of so many connections."""
    found = Races()
    for kind, usual in RATES.items():
        rate = rates.get(kind, usual)
        for factor in (0.5, 1.0, 9.0):
            for connections in (1, 32):
                latency_ms = connections / rate * 1000
                found.add(kind, connections, Measured(rate * factor, latency_ms, 2 * latency_ms))
    return found


def missed(found: Races) -> list[str]:
    return [verdict.sentence for verdict in race_verdicts(found) if not verdict.is_held]


def test_all_bars_hold_where_the_service_is_far_ahead() -> None:
    assert missed(races()) == []
    assert len(race_verdicts(races())) == 5


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ({"mlserver": 2100}, "MLServer, the best server: 2.86 times"),
        ({"litestar": 3400}, "bare Litestar: 1.76 times"),
        ({"litestar": 6100}, "the lowest, bare Litestar's"),
        ({"fastapi": 3700}, "median at one connection to FastAPI + no_grad's: 0.62 times"),
        ({"ours-v2": 7700}, "V2 binary body to our JSON: 1.28 times"),
    ],
)
def test_a_bar_that_is_not_reached_is_missed_and_says_by_how_much(
    rates: dict[str, float], words: str
) -> None:
    assert any(words in sentence for sentence in missed(races(**rates)))


def test_a_bar_is_not_judged_where_a_side_that_it_names_was_not_measured() -> None:
    found = races()
    alone = Races({key: runs for key, runs in found.of.items() if key[0] in ("ours", "fastapi")})
    assert [verdict.sentence[:28] for verdict in race_verdicts(alone)] == ["median at one connection to "]


@pytest.mark.parametrize(("rate", "is_held"), [(89.0, False), (90.0, True)])
def test_the_service_is_held_against_the_best_batch_size_of_the_net_alone(rate: float, is_held: bool) -> None:
    alone = Forward([], [], {"forward": {1: 40.0, 8: 100.0, 32: 95.0}})
    assert cost_verdict(Costs("net", "forward", [Measured(rate, 1, 1)], [alone])).is_held is is_held


def test_memory_is_judged_from_the_second_minute_on() -> None:
    steady = Curve(1, [(second, (100 if second < 60 else 200) * MB) for second in range(0, 301, 2)])
    growing = Curve(1, [(second, (200 + second // 10) * MB) for second in range(0, 301, 2)])
    brief = Curve(1, [(0, MB), (100, 2 * MB)])
    verdicts = [curve.growth_verdict() for curve in (steady, growing, brief)]
    assert [verdict and verdict[1] for verdict in verdicts] == [True, False, None]


def test_the_binary_body_says_where_its_bytes_begin_and_its_reply_is_read_from_there() -> None:
    pixels = np.arange(784, dtype=np.uint8).reshape(1, 28, 28)
    request = v2_binary("mlp", pixels)
    length = int(request.headers["Inference-Header-Content-Length"])
    (tensor,) = json.loads(request.body[:length])["inputs"]
    assert tensor["parameters"]["binary_data_size"] == len(request.body) - length == 784
    assert request.body[length:] == pixels.tobytes()
    reply = b'{"outputs":[]}' + struct.pack("<4f", 0.1, 0.2, 0.6, 0.1)
    assert request.read(reply, {"inference-header-content-length": "14"}) == 2
