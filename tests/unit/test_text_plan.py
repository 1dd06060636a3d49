"""Text in a plan: the net is walked with indices, and a resolved spec plans to itself."""

from typing import Any

from core.nets.plan import Source, check
from tests.prepared import manifest_of

CELLS: dict[str, list[Any]] = {
    "review": ["good film", "bad film", "a good one", "so bad"] * 5,
    "stars": [5.0, 1.0, 4.0, 2.0] * 5,
    "label": ["yes", "no", "yes", "no"] * 5,
}
SOURCE = Source("reviews@1", manifest_of(CELLS, ["review"]))
EMBEDDING = {"type": "Embedding", "num_embeddings": 10_000, "embedding_dim": 8}
LSTM = {"type": "LSTM", "hidden_size": 6, "batch_first": True, "output": "last"}


def job(**fields: Any) -> dict[str, Any]:
    layers = [EMBEDDING, LSTM, {"type": "Linear", "out_features": 2}]
    return {"name": "m", "dataset": "reviews", "model": {"type": "Sequential", "layers": layers}, **fields}


def test_a_net_on_text_plans_with_the_defaults_and_its_resolved_spec_to_itself() -> None:
    once = check(job(), SOURCE)
    assert once.spec["inputs"] == ["review"]
    assert [layer.output_shape[1:] for layer in once.plan.layers if layer.type == "Embedding"] == [[256, 8]]
    assert check(once.spec, SOURCE).spec == once.spec


def test_a_graph_takes_text_and_numbers_as_two_inputs() -> None:
    nodes = [
        {"name": "words", **EMBEDDING, "inputs": ["text"]},
        {"name": "last", **LSTM, "inputs": ["words"]},
        {"name": "both", "type": "cat", "inputs": ["last", "numbers"]},
        {"name": "out", "type": "Linear", "out_features": 2, "inputs": ["both"]},
    ]
    model = {"type": "Graph", "nodes": nodes, "output": "out"}
    inputs = {"text": ["review"], "numbers": ["stars"]}
    checked = check(job(model=model, inputs=inputs), SOURCE)
    assert checked.spec["inputs"] == inputs
    assert checked.spec["model"]["nodes"][-1]["in_features"] == 7
