"""Which of torchvision's datasets can be fetched, beside torchvision's own list of them."""

import inspect

import pytest
import torchvision.datasets

from core.data.sources import FETCHED, LEFT_OUT, complete
from core.errors import Invalid
from modelyard.specs import TorchvisionSource


def test_every_dataset_of_torchvision_is_fetched_or_left_out_with_a_reason() -> None:
    assert set(torchvision.datasets.__all__) <= set(FETCHED) | set(LEFT_OUT)
    assert not set(FETCHED) & set(LEFT_OUT)
    assert all(LEFT_OUT.values())


@pytest.mark.parametrize("name", list(FETCHED))
def test_arguments_of_the_table_are_those_of_the_class(name: str) -> None:
    """MNIST's children pass `train` and `download` on as **kwargs."""
    kind = getattr(torchvision.datasets, name)
    takes = {
        parameter
        for base in inspect.getmro(kind)
        if base is not object
        for parameter in inspect.signature(base.__init__).parameters
    }
    known = FETCHED[name]
    assert {argument for split in known.splits.values() for argument in split} <= takes
    assert set(known.options) | {"download"} <= takes
    assert "train" in known.splits


def test_defaults_are_filled_in() -> None:
    assert complete(TorchvisionSource("EMNIST")) == TorchvisionSource("EMNIST", {"split": "balanced"})
    letters = TorchvisionSource("EMNIST", {"split": "letters"})
    assert complete(letters) == letters


@pytest.mark.parametrize(
    ("source", "pointer", "words"),
    [
        (TorchvisionSource("FashonMNIST"), "/source/dataset", 'Did you mean "FashionMNIST"'),
        (TorchvisionSource("os"), "/source/dataset", "CIFAR10, CIFAR100"),
        (TorchvisionSource("x" * 10_000), "/source/dataset", "There are"),
        (TorchvisionSource("FER2013"), "/source/dataset", "not fetched: torchvision does not download it"),
        (TorchvisionSource("MNIST", {"root": "/etc"}), "/source/options/root", "takes none"),
        (TorchvisionSource("DTD", {"partition": 11}), "/source/options/partition", "expected one of 1, 2"),
        (TorchvisionSource("EMNIST", {"split": "all"}), "/source/options/split", '"letters"'),
    ],
)
def test_what_cannot_be_fetched_is_told_with_a_pointer(
    source: TorchvisionSource, pointer: str, words: str
) -> None:
    with pytest.raises(Invalid) as error:
        complete(source)
    assert [one.pointer for one in error.value.errors] == [pointer]
    assert words in error.value.detail
    assert len(error.value.detail) < 1000
