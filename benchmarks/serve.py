"""One net behind the service and behind other Python servers, under the same load, and the net alone.

    python -m benchmarks.serve [--only mlp|cnn|resnet18] [--sides ours,fastapi] [--rounds 1] [--seconds 4]

Needs `wrk`. The nets are trained through the service in a temporary folder; plain PyTorch and the peers get
its weights. The peers stand in virtual environments of their own under ~/.cache/modelyard-bench, made the
first time. The sides take turns, and a server lives for its turn only; what it says of ten pictures is
compared with plain PyTorch before it is measured. Prints Markdown tables and a line a bar; exits 1 where one
is missed, 130 at Ctrl-C. All of it takes about 20 minutes on two cores."""

import signal
import sys
import tempfile
from pathlib import Path
from typing import Literal

from cyclopts import App

from benchmarks.screen import machine, say
from benchmarks.serving import costs, races, report
from benchmarks.serving.alone import ForwardFailed
from benchmarks.serving.asking import WrongAnswer
from benchmarks.serving.cases import CASES, Case
from benchmarks.serving.environments import DEFAULT_FOLDER, CannotInstall
from benchmarks.serving.report import Verdict
from benchmarks.serving.servers import ServerFailed
from benchmarks.serving.sides import KINDS, Kind
from benchmarks.serving.trained import NotTrained, train
from benchmarks.serving.turns import Place, our_turn
from benchmarks.serving.wrk import BadAnswers, NoWrk, require_wrk
from deploy.embed import StackFailed
from modelyard import Client, ModelyardError

FAILURES = (
    BadAnswers,
    CannotInstall,
    ForwardFailed,
    ModelyardError,
    NotTrained,
    NoWrk,
    OSError,
    ServerFailed,
    StackFailed,
    WrongAnswer,
)

app = App(name="python -m benchmarks.serve", help=__doc__)


@app.default
def main(
    *,
    only: Literal["mlp", "cnn", "resnet18"] | None = None,
    sides: str = ",".join(KINDS),
    rounds: int = 3,
    seconds: int = 8,
    environments: Path = DEFAULT_FOLDER,
) -> int:
    """Measure, print, and judge.

    Args:
        only: one case; the other servers are compared with the service on mlp
        sides: of ours, ours-v2, fastapi, litestar, litserve, mlserver, raw-uvicorn, raw-granian; a bar needs
            those that it names
        rounds: turns of each side; the figures are their medians
        seconds: how long each load lasts
        environments: the folder of the peers' virtual environments
    """
    kinds = tuple(kind for kind in KINDS if kind in sides.split(","))
    if not kinds or set(sides.split(",")) - set(KINDS):
        say(f"expected --sides of {', '.join(KINDS)}, got {sides!r}: name some of them, with commas between")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: nothing is left running
    try:
        require_wrk()
        with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as folder:
            place = Place(Path(folder), environments, seconds)
            verdicts = measured(place, [*CASES.values()] if only is None else [CASES[only]], kinds, rounds)
    except FAILURES as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("stopped; nothing is left running")
        return 130
    return 0 if all(verdict.is_held for verdict in verdicts) else 1


def measured(place: Place, cases: list[Case], kinds: tuple[Kind, ...], rounds: int) -> list[Verdict]:
    """The tables on the screen, and the bars."""
    say("training the nets through the service")
    with our_turn(place) as ours, Client(ours.url, ours.key) as client:
        nets = [train(client, case, place.folder / case.name) for case in cases]
        has_v2 = ours.has_v2(cases[0].name)
    if not has_v2:
        say("the service has no /v2 yet: the V2 binary body is left out, and images are sent as JSON")
    verdicts: list[Verdict] = []
    for trained in nets:
        if trained.case.name == "mlp":
            entered = tuple(kind for kind in kinds if has_v2 or kind != "ours-v2")
            found = races.run(place, trained, entered, rounds)
            say(f"\n{machine()}\n\n{report.race_table(found, trained.case.title)}\n")
            verdicts += report.race_verdicts(found)
        else:
            of_net = costs.run(place, trained, rounds, has_v2)
            say(f"\n{machine()}\n\n{report.cost_table(of_net)}\n")
            verdicts += map(report.cost_verdict, of_net)
    for verdict in verdicts:
        say(verdict.sentence)
    return verdicts


if __name__ == "__main__":
    sys.exit(app())
