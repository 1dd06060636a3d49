"""Residual, Parallel and Graph: what a plan says of them, and what they compute beside plain PyTorch."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.errors import Invalid
from core.nets.build import build_net
from core.nets.plan import Checked, Source, check
from modelyard.specs import ProblemError
from tests.manifests import images, table

# B rows in the batch

Component = dict[str, Any]


def named(kind: str, **keywords: Any) -> Component:
    return {"type": kind} | keywords


def sequential(*layers: Component) -> Component:
    return named("Sequential", layers=list(layers))


def plan_of(model: Component, *, shape: tuple[int, int, int] = (3, 8, 8), **spec: Any) -> Checked:
    channels, height, width = shape
    manifest = images(
        channels=channels, sizes=[(height, width, 20)], classes=["a", "b"], splits={"train": 20}
    )
    return check({"name": "a", "dataset": "d", "model": model} | spec, Source("d@1", manifest))


def errors_of(model: Component, **keywords: Any) -> list[ProblemError]:
    with pytest.raises(Invalid) as caught:
        plan_of(model, **keywords)
    return caught.value.errors


CONV = named("Conv2d", out_channels=3, kernel_size=3, padding=1)
HEAD = [named("Flatten"), named("Linear", out_features=2)]


def test_a_residual_adds_its_input_as_a_script_would() -> None:
    resolved = plan_of(sequential(named("Residual", layers=[CONV, named("ReLU")]), *HEAD)).spec["model"]
    torch.manual_seed(3)
    net = build_net(resolved)
    torch.manual_seed(3)
    conv, linear = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3 * 8 * 8, 2)
    x_BCHW = torch.rand(4, 3, 8, 8)
    assert torch.equal(net(x_BCHW), linear((x_BCHW + conv(x_BCHW).relu()).flatten(1)))
    assert list(net.state_dict()) == ["0.layers.0.weight", "0.layers.0.bias", "2.weight", "2.bias"]


def test_a_residual_whose_shapes_differ_is_told_to_take_a_shortcut() -> None:
    wide = named("Conv2d", out_channels=5, kernel_size=3, padding=1)
    (error,) = errors_of(sequential(named("Residual", layers=[wide]), *HEAD))
    assert error.pointer == "/model/layers/0"
    assert "shortcut" in error.message
    shortcut = [named("Conv2d", out_channels=5, kernel_size=1)]
    plan = plan_of(sequential(named("Residual", layers=[wide], shortcut=shortcut), *HEAD)).plan
    assert [layer.path for layer in plan.layers][:2] == ["0.layers.0", "0.shortcut.0"]


def test_branches_are_concatenated_or_summed() -> None:
    branches = [CONV, sequential(CONV, named("Tanh"))]
    for combine, channels in (("concat", 6), ("sum", 3)):
        checked = plan_of(sequential(named("Parallel", branches=branches, combine=combine), *HEAD))
        torch.manual_seed(0)
        net = build_net(checked.spec["model"])
        torch.manual_seed(0)
        first, second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        x_BCHW = torch.rand(2, 3, 8, 8)
        outputs = [first(x_BCHW), second(x_BCHW).tanh()]
        expected = torch.cat(outputs, dim=1) if combine == "concat" else outputs[0] + outputs[1]
        assert torch.equal(net[0](x_BCHW), expected)
        assert expected.shape[1] == channels


def test_branches_of_different_shapes_cannot_be_summed() -> None:
    branches = [CONV, named("Conv2d", out_channels=1, kernel_size=3, padding=1)]
    (error,) = errors_of(sequential(named("Parallel", branches=branches, combine="sum"), *HEAD))
    assert (error.pointer, error.code) == ("/model/layers/0", "shape")


GRAPH = named(
    "Graph",
    nodes=[
        named(
            "Conv2d", name="once", inputs=["image"], share="conv", out_channels=3, kernel_size=3, padding=1
        ),
        named(
            "Conv2d", name="twice", inputs=["once"], share="conv", out_channels=3, kernel_size=3, padding=1
        ),
        named("mul", name="product", inputs=["once", "twice"]),
        named("cat", name="both", inputs=["product", "image"]),
        named("Flatten", name="flat", inputs=["both"]),
        named("Linear", name="fc", inputs=["flat"], out_features=2),
    ],
    output="fc",
)


class ByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.fc = nn.Linear(6 * 8 * 8, 2)

    def forward(self, image: Tensor) -> Tensor:
        once = self.conv(image)
        both = torch.cat([once * self.conv(once), image], dim=1)
        scores: Tensor = self.fc(both.flatten(1))
        return scores


def test_a_graph_equals_the_module_a_script_would_write() -> None:
    checked = plan_of(GRAPH)
    torch.manual_seed(7)
    net = build_net(checked.spec["model"])
    torch.manual_seed(7)
    by_hand = ByHand()
    assert list(net.state_dict()) == list(by_hand.state_dict())
    x_BCHW = torch.rand(5, 3, 8, 8)
    assert torch.equal(net(x_BCHW), by_hand(x_BCHW))
    net(x_BCHW).sum().backward()
    by_hand(x_BCHW).sum().backward()
    for (name, mine), theirs in zip(net.named_parameters(), by_hand.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert torch.equal(mine.grad, theirs.grad), name


def test_a_shared_node_is_counted_once() -> None:
    expected = sum(p.numel() for p in ByHand().parameters())
    assert plan_of(GRAPH).plan.parameters == expected


def test_a_graph_takes_several_inputs_of_a_table() -> None:
    manifest = table()
    model = named(
        "Graph",
        nodes=[
            named("Linear", name="left", inputs=["a"], out_features=4),
            named("Linear", name="right", inputs=["b"], out_features=4),
            named("Bilinear", name="joined", inputs=["left", "right"], out_features=1),
        ],
        output="joined",
    )
    spec = {"name": "a", "dataset": "d", "model": model, "inputs": {"a": ["age", "height"], "b": ["city"]}}
    checked = check(spec, Source("d@1", manifest))
    assert [layer.output_shape[1:] for layer in checked.plan.layers] == [[4], [4], [1]]
    net = build_net(checked.spec["model"])
    assert net(torch.rand(6, 2), torch.rand(6, 2)).shape == (6, 1)


@pytest.mark.parametrize(
    ("change", "pointer", "word"),
    [
        ({"inputs": ["imagee"]}, "/model/nodes/0/inputs/0", 'Did you mean "image"?'),
        ({"inputs": ["twice"]}, "/model/nodes/0/inputs/0", "There is no input or earlier node"),
        ({"name": "image"}, "/model/nodes/0/name", "taken"),
        ({"name": "a.b"}, "/model/nodes/0/name", "letters"),
        ({"share": "forward"}, "/model/nodes/0/name", "word of torch"),
        ({"inputs": ["image[1]"]}, "/model/nodes/0/inputs/0", "gives one output"),
        ({"inputs": ["image", "image"]}, "/model/nodes/0", "takes 1 input;"),
        ({"out_channels": 4}, "/model/nodes/1", "shares a module"),
    ],
)
def test_a_wrong_node_is_pointed_at(change: Component, pointer: str, word: str) -> None:
    nodes = [GRAPH["nodes"][0] | change, *GRAPH["nodes"][1:]]
    error, *_ = errors_of(GRAPH | {"nodes": nodes})  # what refers to a node that is renamed is wrong then
    assert error.pointer == pointer
    assert word in error.message


def test_an_unused_node_is_warned_of() -> None:
    nodes = [*GRAPH["nodes"], named("ReLU", name="idle", inputs=["both"])]
    assert any(
        "nothing uses idle" in line or "idle" in line
        for line in plan_of(GRAPH | {"nodes": nodes}).plan.warnings
    )


def test_one_of_several_outputs_is_named_by_its_place() -> None:
    nodes = [
        named("Flatten", name="flat", inputs=["image"]),
        named("chunk", name="parts", inputs=["flat"], chunks=2),
        named("add", name="sum", inputs=["parts[0]", "parts[1]"]),
        named("Linear", name="fc", inputs=["sum"], out_features=2),
    ]
    net = build_net(plan_of(named("Graph", nodes=nodes, output="fc")).spec["model"])
    x_BCHW = torch.rand(2, 3, 8, 8)
    left, right = x_BCHW.flatten(1).chunk(2, dim=1)
    assert torch.equal(net(x_BCHW), net.fc(left + right))


def test_a_graph_nests_in_a_sequential() -> None:
    inner = named(
        "Graph",
        nodes=[named("ReLU", name="a", inputs=["input"]), named("add", name="b", inputs=["a", "input"])],
        output="b",
    )
    net = build_net(plan_of(sequential(inner, *HEAD)).spec["model"])
    x_BCHW = torch.randn(2, 3, 8, 8)
    assert torch.equal(net[0](x_BCHW), x_BCHW.relu() + x_BCHW)


def test_no_layer_acts_along_the_batch() -> None:
    for layer in (named("Softmax", dim=0), named("Softmax", dim=-4), named("mean", dim=0)):
        (error,) = errors_of(sequential(layer, *HEAD))
        assert error.pointer == "/model/layers/0/dim"
