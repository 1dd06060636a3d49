"""Curves in characters: known numbers give a known picture, whatever the width."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from modelyard.cli.curves import FRAME, LABEL, Curve, line, plot
from modelyard.cli.panels import History, has_room, panels
from modelyard.specs import Metric
from tests.unit.scripted_service import AT


def drawn(*curves: Curve, width: int, height: int) -> list[str]:
    return [text.plain for text in plot(curves, LABEL + FRAME + width, height)]


def test_a_straight_line_is_drawn_dot_by_dot() -> None:
    # Braille, U+2800 + bits: 4 x 8 dots of a diagonal of slope one in 4 x 2 cells' upper right half.
    picture = drawn(Curve("a", [(0, 0), (7, 7)]), width=4, height=4)
    assert picture[1:3] == ["        7│  ⡠⠊", "        0│⡠⠊  "]
    assert picture[3].split() == ["0", "7"]


def test_a_step_is_a_flat_line_a_rise_and_a_flat_line() -> None:
    picture = drawn(Curve("a", [(0, 1), (4, 1), (4, 3), (7, 3)]), width=4, height=4)
    assert picture[1:3] == ["        3│  ⡏⠉", "        1│⣀⣀⡇ "]


def test_every_line_has_the_width_that_was_asked_for_at_most() -> None:
    points = [(float(x), float(x * x)) for x in range(500)]
    for width in (1, 7, 40, 200):
        lines = plot([Curve("a long name of a curve", points)], LABEL + FRAME + width, 8)
        assert len(lines) == 8
        assert max(len(text.plain) for text in lines) == LABEL + FRAME + width


def test_points_are_marked_where_they_are_few() -> None:
    few = Curve("val_loss", [(0, 0), (20, 1)], has_marks=True)
    many = Curve("val_loss", [(x, x) for x in range(20)], has_marks=True)
    assert sum(row.count("o") for row in drawn(few, width=20, height=5)[1:-1]) == 2
    assert sum(row.count("o") for row in drawn(many, width=20, height=5)[1:-1]) == 0


@pytest.mark.parametrize("points", [[], [(3.0, 0.5)], [(0.0, 2.0), (1.0, 2.0)]])
def test_nothing_one_number_and_a_constant_can_be_drawn(points: list[tuple[float, float]]) -> None:
    assert len(drawn(Curve("a", points), width=10, height=5)) == 5


def test_a_line_reaches_both_its_ends() -> None:
    assert list(line((0, 0), (3, 1))) == [(0, 0), (1, 0), (2, 1), (3, 1)]
    assert list(line((2, 5), (2, 5))) == [(2, 5), (2, 5)]


def row(name: str, step: int, value: float | None) -> Metric:
    return Metric(name, step, 1, value, AT)  # type: ignore[arg-type]  # its time is not read


def test_what_a_rewound_job_did_not_do_is_not_drawn() -> None:
    history = History("val_loss")
    history.add([row("train_loss", step, 1 / step) for step in range(1, 11)])
    history.rewind(6)
    assert history.last_step == 6
    history.add([row("train_loss", 6, 5.0), row("train_loss", 7, None)])
    assert history.curve("train_loss", "").points == [(step, 1 / step) for step in range(1, 6)] + [(6, 5.0)]


def shown(history: History, width: int, height: int, **options: object) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, **options)  # type: ignore[arg-type]
    with console.capture() as capture:
        console.print(panels(history, console))
    return capture.get()


def a_history() -> History:
    history = History("val_f1")
    for step in range(1, 41):
        history.add([row("train_loss", step, 1 / step), row("lr", step, 0.1 / step)])
        if step % 10 == 0:
            history.add([row("val_loss", step, 2 / step), row("val_f1", step, step / 40)])
    return history


@pytest.mark.parametrize(("width", "height"), [(200, 60), (120, 30), (80, 24), (60, 15), (40, 10)])
def test_panels_fit_the_terminal(width: int, height: int) -> None:
    lines = shown(a_history(), width, height, no_color=True).splitlines()
    assert len(lines) <= height - 2
    assert all(len(Text.from_ansi(one).plain) <= width for one in lines)
    assert "train_loss 0.025" in lines[0]


def test_wide_terminals_have_losses_monitor_and_rate_and_small_ones_the_losses() -> None:
    wide, small = shown(a_history(), 130, 30), shown(a_history(), 60, 14)
    assert all(name in wide for name in ("train_loss", "val_loss", "val_f1", "lr"))
    assert "train_loss" in small
    assert "val_f1" not in small
    assert not has_room(Console(width=20, height=30))


def test_colours_are_left_out_where_nobody_wants_them() -> None:
    assert "\x1b[36m" in shown(a_history(), 80, 24, color_system="standard")
    assert "\x1b[36m" not in shown(a_history(), 80, 24, color_system="standard", no_color=True)
