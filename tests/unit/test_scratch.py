"""Folders of attempts: named after the fence, so that one who comes late harms nobody."""

from pathlib import Path

from workers.finish import clear_earlier, clear_scratch


def test_an_attempt_clears_what_came_before_it_and_nothing_that_came_after(tmp_path: Path) -> None:
    for fence in ("2", "9", "10", "11"):
        (tmp_path / "job" / fence).mkdir(parents=True)
        (tmp_path / "job" / fence / "5.weights.pt").touch()
    clear_earlier(tmp_path / "job" / "10")
    assert {folder.name for folder in (tmp_path / "job").iterdir()} == {"10", "11"}
    clear_scratch(tmp_path / "job" / "10")
    assert [path.name for path in (tmp_path / "job").rglob("*")] == ["11", "5.weights.pt"]


def test_the_first_attempt_finds_nothing_to_clear(tmp_path: Path) -> None:
    clear_earlier(tmp_path / "job" / "1")
    assert list(tmp_path.iterdir()) == []
