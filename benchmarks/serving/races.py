"""The MLP behind all sides: each in its turn, under one connection and under many."""

from benchmarks.screen import say
from benchmarks.serving import alone
from benchmarks.serving.asking import Request, v1_json, v2_binary
from benchmarks.serving.environments import python_of
from benchmarks.serving.report import CONNECTIONS, MANY, Races
from benchmarks.serving.results import top
from benchmarks.serving.sides import LABELS, PEERS, Kind, Peer, Variant
from benchmarks.serving.trained import Trained
from benchmarks.serving.turns import Place, check, measure, our_turn, turn_of
from benchmarks.serving.wrk import press, warm_up

OUR_REQUESTS = {"ours": v1_json, "ours-v2": v2_binary}
PROBE_S = 3
#: A peer is run otherwise than it comes where that is so many times as fast.
WORTH_IT = 1.1


def run(place: Place, trained: Trained, kinds: tuple[Kind, ...], rounds: int) -> Races:
    """Raises WrongAnswer before anything that answers wrongly is measured."""
    expected = [top(scores) for scores in alone.answers("mlp", trained.folder).scores]
    peers = [PEERS[kind] for kind in kinds if kind in PEERS]
    install(place, peers)
    races = Races()
    chosen = {peer.kind: choose(place, peer, trained, races) for peer in peers}
    for number in range(1, rounds + 1):
        say(f"round {number}")
        race_ours(place, trained, expected, [kind for kind in kinds if kind in OUR_REQUESTS], races)
        for peer in peers:
            race_peer(place, peer, chosen[peer.kind], trained, expected, races)
    return races


def install(place: Place, peers: list[Peer]) -> None:
    """All of them before the first is measured: pip would take their processor."""
    for peer in peers:
        say(f"{LABELS[peer.kind]}: {', '.join(peer.requirements)}")
        python_of(place.environments, peer.kind, peer.requirements)


def choose(place: Place, peer: Peer, trained: Trained, races: Races) -> Variant:
    """The way in which the peer is fastest under many connections; as it comes unless another is worth it."""
    rates = [probe(place, peer, variant, trained) for variant in peer.variants]
    gain = max(rates) / rates[0]
    if gain < WORTH_IT:
        return peer.variants[0]
    best = peer.variants[rates.index(max(rates))]
    races.ways[peer.kind] = f"{best.label}: {gain:.1f} times as it comes"
    return best


def probe(place: Place, peer: Peer, variant: Variant, trained: Trained) -> float:
    request = peer.request(trained.pictures[0])
    with turn_of(place, peer, variant, trained.weights, request) as url:
        warm_up(url, request, MANY, place.folder)
        rate = press(url, request, MANY, PROBE_S, place.folder).requests_per_s
    say(f"  {LABELS[peer.kind]}, {variant.label or 'as it comes'}: {rate:,.0f} requests/s")
    return rate


def race_ours(place: Place, trained: Trained, expected: list[int], kinds: list[Kind], races: Races) -> None:
    if not kinds:
        return
    with our_turn(place) as ours:
        for kind in kinds:
            requests = [OUR_REQUESTS[kind]("mlp", pixels).with_key(ours.key) for pixels in trained.pictures]
            race(place, ours.url, kind, requests, expected, races)


def race_peer(
    place: Place, peer: Peer, variant: Variant, trained: Trained, expected: list[int], races: Races
) -> None:
    requests = [peer.request(pixels) for pixels in trained.pictures]
    with turn_of(place, peer, variant, trained.weights, requests[0]) as url:
        race(place, url, peer.kind, requests, expected, races)


def race(
    place: Place, url: str, kind: Kind, requests: list[Request], expected: list[int], races: Races
) -> None:
    check(url, requests, expected)
    told = []
    for connections in CONNECTIONS:
        one = measure(place, url, requests[0], connections)
        races.add(kind, connections, one)
        latencies = f"p50 {one.p50_ms:.2f}, p99 {one.p99_ms:.2f} ms"
        told.append(f"{connections}: {one.requests_per_s:,.0f} requests/s, {latencies}")
    say(f"  {LABELS[kind]}, {'; '.join(told)}")
