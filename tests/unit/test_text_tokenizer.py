"""A tokenizer.json: the same indices as the `tokenizers` library, and hostile files refused."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from core.data import prepare
from core.data.inputs import NetInput
from core.data.prepare import FittedColumn
from core.errors import Invalid
from tests import prepared

TEXTS = ["the cat sat on the mat", "a dog", "", "the dog and the cat and the cow and one more"]
INPUTS = {"input": ["review"]}


def trained() -> Tokenizer:
    """BPE with special tokens around each text, as of BERT."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    specials = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


def saved(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def steps(size: int, *more: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "Tokenizer", "file": {"upload": "up_1"}, "vocab_size": size}, *more]


def fitted(path: Path, size: int, *more: dict[str, Any]) -> list[FittedColumn]:
    return prepared.fitted(steps(size, *more), {"review": TEXTS}, ["review"], files={"up_1": path})


def refusal(path: Path, size: int = 100) -> str:
    with pytest.raises(Invalid) as caught:
        fitted(path, size)
    return caught.value.detail


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_indices_are_those_of_the_library_truncated_and_padded(tmp_path: Path, side: str) -> None:
    tokenizer = trained()
    path, size = saved(tmp_path, tokenizer), tokenizer.get_vocab_size()
    given = prepared.applied(
        steps(
            size, {"type": "Truncate", "length": 6, "side": side}, {"type": "Pad", "length": 8, "side": side}
        ),
        {"review": TEXTS},
        ["review"],
        files={"up_1": path},
    )
    tokenizer.enable_truncation(6, direction=side)
    tokenizer.enable_padding(length=8, direction=side, pad_id=3, pad_token="[PAD]")
    assert given.tolist() == [encoding.ids for encoding in tokenizer.encode_batch(TEXTS)]


def test_a_length_that_the_special_tokens_do_not_fit_into_is_kept_all_the_same(tmp_path: Path) -> None:
    short = steps(100, {"type": "Truncate", "length": 1})
    files = {"up_1": saved(tmp_path, trained())}
    given = prepared.applied(short, {"review": TEXTS}, ["review"], files=files)
    assert given.tolist() == [[1]] * len(TEXTS)


def test_the_plan_needs_no_file_and_bounds_the_indices_by_vocab_size() -> None:
    manifest = prepared.manifest_of({"review": TEXTS}, ["review"])
    assert prepared.resolved(steps(70), manifest, INPUTS).inputs == [NetInput("input", [256], "int64", 70)]


def test_the_file_is_stored_with_the_column_and_answers_without_it(tmp_path: Path) -> None:
    tokenizer = trained()
    path = saved(tmp_path, tokenizer)
    fit = fitted(path, 100, {"type": "Truncate", "length": 10})
    path.unlink()
    again = msgspec.json.decode(msgspec.json.encode(fit), type=list[FittedColumn])
    (given,) = prepare.apply(again, INPUTS, prepare.columns_from_rows([{"review": "a cat"}], again))
    expected = tokenizer.encode("a cat").ids
    assert given[0].tolist() == expected + [3] * (10 - len(expected))


def test_the_padding_of_the_file_is_taken(tmp_path: Path) -> None:
    tokenizer = trained()
    tokenizer.enable_padding(pad_id=2, pad_token="[SEP]")
    fit = fitted(saved(tmp_path, tokenizer), 100)
    (given,) = prepare.apply(fit, INPUTS, {"review": np.array(["a"], dtype=object)})
    assert given[0, -1] == 2


def test_a_vocab_size_below_the_file_s_indices_is_refused_with_the_right_one(tmp_path: Path) -> None:
    tokenizer = trained()
    size = tokenizer.get_vocab_size()
    assert f"say {size}" in refusal(saved(tmp_path, tokenizer), size - 1)


def test_a_file_that_is_not_at_hand_is_refused() -> None:
    with pytest.raises(Invalid, match="'up_1' is not at hand"):
        prepared.fitted(steps(9), {"review": TEXTS}, ["review"])


DEEP = (
    '{"model": {"type": "BPE"}, "normalizer": ' + '{"type": "Sequence", "normalizers": [' * 2000 + "]}" * 2000
)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b"[1]",
        b'"model"',
        b'{"model": 3}',
        b'{"model": {"type": "Evil"}}',
        b'{"version": "1.0", "model": {"type": "Unigram", "vocab": [], "unk_id": 5}}',
        b'{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"b": 0}, "unk_token": "c"}}',
        b'{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 4294967295}, "unk_token": "a"}}',
        DEEP.encode() + b"}",
        b"[" * 100_000,
    ],
    ids=lambda content: repr(content[:30]),
)
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    assert "tokenizer" in refusal(path)


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with path.open("wb") as sparse:
        sparse.truncate(1 << 40)
    assert "bytes" in refusal(path)


def test_replacements_that_blow_a_text_up_are_refused(tmp_path: Path) -> None:
    tokenizer = trained()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("a", "aaaaaaaa")] * 3)
    assert "512" in refusal(saved(tmp_path, tokenizer))
    tokenizer.normalizer = normalizers.Replace(Regex("a*"), "b" * 100)
    assert "101" in refusal(saved(tmp_path, tokenizer))
    raw = json.loads(trained().to_str())
    raw["normalizer"] = {"type": "Replace", "pattern": {"String": ""}, "content": "b"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    assert "nothing" in refusal(tmp_path / "tokenizer.json")


def test_an_expression_that_backtracks_without_end_fails_the_text_and_not_the_process(tmp_path: Path) -> None:
    tokenizer = trained()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"(a+)+$"), "isolated")
    fit = fitted(saved(tmp_path, tokenizer), 100)
    with pytest.raises(Invalid, match="cannot read a text"):
        prepare.apply(fit, INPUTS, {"review": np.array(["a" * 40 + "b"], dtype=object)})
