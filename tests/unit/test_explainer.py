"""What the explaining child answers where it cannot explain."""

import sys
from pathlib import Path

import pytest

from core.errors import Invalid
from service import explainer
from service.planner import PlanBroke


def asked(folder: Path) -> bytes:
    manifest, weights = (str(folder / name) for name in ("manifest.json", "weights.pt"))
    request = explainer.Explain(manifest, weights, "saliency", [explainer.Row(0)])
    return explainer.answer(explainer.encode(request))


def test_without_captum_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "core.attribution", raising=False)
    for name in ("captum", "captum.attr"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Invalid, match=r"pip install 'modelyard\[explain\]'") as raised:
        explainer.decode(asked(tmp_path))
    assert raised.value.code == "explain_not_installed"


def test_a_bug_comes_back_with_its_traceback_and_the_child_lives_on(tmp_path: Path) -> None:
    with pytest.raises(PlanBroke, match="FileNotFoundError"):
        explainer.decode(asked(tmp_path))
