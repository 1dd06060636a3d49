"""Uploads that a spec names, held against it before the job runs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, trainers
from torchvision import models as nets

from core.errors import Invalid
from core.nets.named_files import MAX_TOKENIZER_BYTES
from core.nets.plan import Checked, Source, check
from modelyard.specs import ProblemError
from tests.manifests import images
from tests.prepared import manifest_of

WEIGHTS = {"type": "resnet18", "num_classes": 10, "weights": {"upload": "upl_1"}}


def check_net(model: dict[str, Any], path: Path) -> Checked:
    manifest = images(channels=3, sizes=[(64, 64, 40)], splits={"train": 40})
    spec = {"name": "a", "dataset": "d", "model": model, "trainer": {"batch_size": 2}}
    return check(spec, Source("d@1", manifest), files={"upl_1": path})


def saved(tmp_path: Path, state: Any, **keywords: Any) -> Path:
    torch.save(state, tmp_path / "weights.pt", **keywords)
    return tmp_path / "weights.pt"


def refused(model: dict[str, Any], path: Path) -> list[ProblemError]:
    with pytest.raises(Invalid) as caught:
        check_net(model, path)
    return caught.value.errors


@pytest.mark.parametrize("num_classes", [10, 1000])
@pytest.mark.parametrize("is_zip", [True, False])
def test_torchvisions_own_weights_pass_with_any_head(tmp_path: Path, num_classes: int, is_zip: bool) -> None:
    state = nets.resnet18(num_classes=num_classes).state_dict()
    path = saved(tmp_path, state, _use_new_zipfile_serialization=is_zip)
    assert check_net(WEIGHTS, path).spec["model"]["weights"] == {"upload": "upl_1"}


def test_weights_of_another_net_are_refused_with_every_sort_of_difference(tmp_path: Path) -> None:
    state = nets.resnet18(num_classes=10).state_dict()
    del state["bn1.weight"]
    state["more.weight"] = torch.zeros(1)
    state["conv1.weight"] = torch.zeros(64, 3, 5, 5)
    state["layer1.0.bn1.bias"] = torch.zeros(7)
    (error,) = refused(WEIGHTS, saved(tmp_path, state))
    assert (error.pointer, error.code) == ("/model/weights/upload", "wrong_weights")
    for said in (
        "resnet18",
        "lacks bn1.weight",
        "also has more.weight",
        "conv1.weight is [64, 3, 5, 5], expected [64, 3, 7, 7]",
        "layer1.0.bn1.bias is [7], expected [64]",
    ):
        assert said in error.message


def test_weights_deep_in_a_net_are_refused_where_they_are_named(tmp_path: Path) -> None:
    model = {"type": "Sequential", "layers": [{"type": "Identity"}, WEIGHTS]}
    (error,) = refused(model, saved(tmp_path, nets.resnet50().state_dict()))
    assert error.pointer == "/model/layers/1/weights/upload"


@pytest.mark.parametrize("content", [b"no weights", b"", b"PK\x03\x04 no zip", b"\x80\x02a."])
def test_bytes_that_are_no_weights_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    (error,) = refused(WEIGHTS, tmp_path / "weights.pt")
    assert error.pointer == "/model/weights/upload"
    assert "torch.save(model.state_dict()" in error.message


def test_half_a_file_of_weights_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, nets.resnet18(num_classes=10).state_dict())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert [error.pointer for error in refused(WEIGHTS, path)] == ["/model/weights/upload"]


def test_wrong_weights_stand_beside_the_other_errors_of_a_spec(tmp_path: Path) -> None:
    path = saved(tmp_path, nets.resnet50().state_dict())
    manifest = images(channels=3, sizes=[(64, 64, 40)], splits={"train": 40})
    spec = {"name": "stats", "dataset": "d", "model": WEIGHTS, "freeze": ["nothing"]}
    with pytest.raises(Invalid) as caught:
        check(spec, Source("d@1", manifest), files={"upl_1": path})
    assert {"/name", "/model/weights/upload"} <= {error.pointer for error in caught.value.errors}


def tokenized(path: Path, vocab_size: int) -> Checked:
    layers = [
        {"type": "Embedding", "embedding_dim": 2},
        {"type": "Flatten"},
        {"type": "Linear", "out_features": 2},
    ]
    step = {"type": "Tokenizer", "file": {"upload": "upl_1"}, "vocab_size": vocab_size}
    manifest = manifest_of({"text": ["so good", "so bad"] * 5, "label": ["yes", "no"] * 5}, ["text"])
    spec = {"name": "a", "dataset": "d", "model": {"type": "Sequential", "layers": layers}, "prepare": [step]}
    return check(spec, Source("d@1", manifest), files={"upl_1": path})


def tokenizer_file(tmp_path: Path) -> tuple[Path, int]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.train_from_iterator(["so good so bad"], trainers.BpeTrainer(show_progress=False))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json", tokenizer.get_vocab_size()


def test_a_tokenizer_passes_with_its_own_size_and_is_refused_with_less(tmp_path: Path) -> None:
    path, size = tokenizer_file(tmp_path)
    tokenized(path, size)
    with pytest.raises(Invalid) as caught:
        tokenized(path, size - 1)
    (error,) = caught.value.errors
    assert (error.pointer, error.code) == ("/prepare/0/file/upload", "bad_tokenizer")
    assert f"say {size}" in error.message


def test_bytes_that_are_no_tokenizer_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b"no tokenizer")
    with pytest.raises(Invalid) as caught:
        tokenized(tmp_path / "tokenizer.json", 10)
    assert [error.pointer for error in caught.value.errors] == ["/prepare/0/file/upload"]


def test_a_tokenizer_too_large_to_be_looked_at_in_a_moment_is_the_workers(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b" " * (MAX_TOKENIZER_BYTES + 1))
    tokenized(tmp_path / "tokenizer.json", 10)
