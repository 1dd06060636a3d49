"""What the service costs around nets that take their time: images a second under many connections, to those
of the net alone at its best batch size."""

from dataclasses import dataclass

from benchmarks.screen import say
from benchmarks.serving import alone
from benchmarks.serving.asking import Request, v1_jpeg, v1_json, v2_binary
from benchmarks.serving.report import MANY, Costs
from benchmarks.serving.results import top
from benchmarks.serving.trained import Trained
from benchmarks.serving.turns import Place, check, measure, our_turn

#: The load lasts longer than on the small net: what is under way at its end is not counted, and of a net that
#: takes a second for a batch that would be a tenth.
TIMES_LONGER = 4
#: At each batch size of the net alone.
FORWARD_S = 1.5


def run(place: Place, trained: Trained, rounds: int, has_v2: bool) -> list[Costs]:
    """The forward is held against the body that costs least to read; of large images a JPEG is too, against
    decoding and forward."""
    case = trained.case.name
    entries = entries_of(trained, has_v2)
    for number in range(1, rounds + 1):
        say(f"{case}, round {number}")
        serve(place, entries)
        forward = alone.run(case, trained.folder, FORWARD_S)
        for entry in entries:
            entry.cost.alone.append(forward)
            say(f"  {entry.cost.way} alone: {forward.best(entry.cost.way):,.1f} images/s")
    return [entry.cost for entry in entries]


@dataclass(frozen=True)
class Entry:
    """One form of body, and the classes that plain PyTorch takes the pictures for."""

    cost: Costs
    requests: list[Request]
    expected: list[int]


def entries_of(trained: Trained, has_v2: bool) -> list[Entry]:
    case, form = trained.case.name, v2_binary if has_v2 else v1_json
    answers = alone.answers(case, trained.folder)
    cost = Costs(f"{case}, {'V2 binary' if has_v2 else 'JSON'}", "forward")
    entries = [Entry(cost, [form(case, pixels) for pixels in trained.pictures], [*map(top, answers.scores)])]
    if case == "resnet18":
        cost = Costs(f"{case}, JPEG", "decode + forward")
        requests = [v1_jpeg(case, jpeg) for jpeg in trained.jpegs]
        entries.append(Entry(cost, requests, [*map(top, answers.scores_of_jpegs)]))
    return entries


def serve(place: Place, entries: list[Entry]) -> None:
    with our_turn(place) as ours:
        for entry in entries:
            requests = [request.with_key(ours.key) for request in entry.requests]
            check(ours.url, requests, entry.expected)
            one = measure(place, ours.url, requests[0], MANY, TIMES_LONGER)
            entry.cost.served.append(one)
            say(f"  {entry.cost.title}: {one.requests_per_s:,.1f} images/s, p99 {one.p99_ms:.0f} ms")
