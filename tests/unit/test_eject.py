"""What a script says, and what no script is written for; that one trains as its job did is in tests/e2e."""

import ast
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
import torch

from core.eject import archive
from core.eject.code import Bracketed, call, literal, show, text
from core.eject.script import Trained
from core.eject.training import pattern
from core.errors import Conflict
from core.nets.plan import Source, check
from core.nets.randomness import permutation
from tests.attempts import TEXT_STEPS, Data, arrays, c, numbers, seq, texts

RESOLVED: dict[str, Any] = {
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "memory_format": "contiguous",
    "compile": False,
    "fused": False,
    "deterministic": True,
    "torch": "2.15.0+cpu",
    "cpu_capability": "AVX2",
}
IMAGES = arrays([3, 8, 8], classes=4, dtype="uint8")
NET = seq(c("Flatten"), c("Linear", out_features=4))


def files_of(spec: dict[str, Any], data: Data, folder: Path, **resolved: Any) -> dict[str, str]:
    manifest, rows = data()
    path = folder / "data.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = msgspec.structs.replace(manifest, data_sha256=sha256)
    checked = check({"name": "a", "dataset": "d"} | spec, Source("d@1", manifest))
    trained = Trained(checked.spec["trainer"]["epochs"], 10**9, RESOLVED | resolved)
    return archive.files_of(
        archive.Source("job_1", checked.spec, trained, path, manifest, "d@1", "/v1/d", "0" * 64)
    )


def refused(spec: dict[str, Any], data: Data, folder: Path, **resolved: Any) -> list[str]:
    with pytest.raises(Conflict) as raised:
        files_of(spec, data, folder, **resolved)
    assert raised.value.code == "not_ejectable"
    return [error.pointer for error in raised.value.errors]


def test_the_order_of_rows_in_a_script_is_ours(tmp_path: Path) -> None:
    script = files_of({"model": NET}, IMAGES, tmp_path)["train.py"]
    wanted = {"splitmix", "permutation"}
    parts = [node for node in ast.parse(script).body if getattr(node, "name", "") in wanted]
    names: dict[str, Any] = {"torch": torch}

    exec(compile(ast.Module(parts, []), "train.py", "exec"), names)

    for seed, epoch in [(0, 0), (1729, 3), (2**63 - 1, 10)]:
        assert torch.equal(names["permutation"](seed, epoch, 1000), permutation(seed, epoch, 1000))


def test_equal_jobs_give_equal_archives(tmp_path: Path) -> None:
    first, second = (archive.zipped(files_of({"model": NET}, IMAGES, tmp_path)) for _ in range(2))

    assert first == second


def test_all_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    spec = {
        "model": NET,
        "scheduler": c("LambdaLR", lr_lambda="0.9 ** epoch"),
        "optimizer": c("AdamW", param_groups=[{"match": ".*weight", "type": "Muon"}]),
        "trainer": {"sampler": c("RandomSampler", replacement=True)},
    }

    assert refused(spec, IMAGES, tmp_path, device="cuda") == [
        "/trainer/device",
        "/trainer/sampler",
        "/optimizer/param_groups/0",
        "/scheduler/lr_lambda",
    ]


def test_a_graph_has_no_script(tmp_path: Path) -> None:
    nodes = [c("Linear", name="out", inputs=["input"], out_features=1)]
    graph = c("Graph", nodes=nodes, output="out", input_names=["input"])

    assert "/model/layers/0" in refused({"model": seq(graph)}, numbers("a", "b"), tmp_path)


def test_text_has_no_script(tmp_path: Path) -> None:
    layers = [c("Embedding", embedding_dim=8), c("mean", dim=1), c("Linear", out_features=2)]

    assert refused({"prepare": TEXT_STEPS, "model": seq(*layers)}, texts, tmp_path) == ["/prepare"]


def test_a_model_with_code_in_its_metadata_has_none_of_it_in_the_script(tmp_path: Path) -> None:
    spec = {"model": NET, "metadata": {"x": '"""\nimport os\nos.abort()'}}

    assert not any("abort" in content for content in files_of(spec, IMAGES, tmp_path).values())


@pytest.mark.parametrize("value", ['"""', "'", "\\", "\n", "a\\", "é", "\"'\\", r"fc\..*", "{x}", "#"])
def test_a_string_is_itself_once_it_is_read(value: str) -> None:
    written = text(value)

    assert ast.literal_eval(written) == value
    assert written.isascii()
    assert "\n" not in written


@pytest.mark.parametrize("value", [None, True, 3, 1e-05, [1, [2.0]], (1,), (), (2, 3), -1.5])
def test_a_value_is_itself_once_it_is_read(value: object) -> None:
    assert ast.literal_eval(show(literal(value))) == value


def test_what_is_no_number_is_written_all_the_same() -> None:
    assert eval(str(literal(float("inf")))) == float("inf")


def test_a_long_call_is_opened_bracket_by_bracket() -> None:
    layers = [("", call("nn.Linear", "784", "512")), ("", call("nn.ReLU"))]

    assert show(Bracketed(layers, "nn.Sequential", is_open=True)) == (
        "nn.Sequential(\n    nn.Linear(784, 512),\n    nn.ReLU(),\n)"
    )


@pytest.mark.parametrize(
    ("match", "written"),
    [
        (r"fc\..*", r"fc\..*"),
        (r"(conv1|bn1|layer[123])\..*", r"(conv1|bn1|layer[123])\..*"),
        (r"(a+)+b|0\.weight", r"0\.weight"),  # Python would take forever for some names
        (r"[[:digit:]]\.bias", r"0\.bias"),  # Python reads it another way
        (r"(?i)0\.WEIGHT", r"0\.weight"),
    ],
)
def test_a_pattern_that_python_reads_otherwise_becomes_the_names_it_matches(match: str, written: str) -> None:
    assert pattern(match, ["0.weight", "0.bias"]) == written
