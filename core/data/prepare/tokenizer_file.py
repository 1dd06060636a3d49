"""A tokenizer.json of the `tokenizers` library: read as hostile, then used.

Its native code panics where a regular expression backtracks too far (Oniguruma stops after 10 million steps,
0.2 s), and a panic is no `Exception`. What it may grow a text by is bounded before it is opened.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from core.data.prepare.steps import Side
from core.data.prepare.text import Tokens
from core.errors import Invalid

MAX_BYTES = 32 * 1024 * 1024
#: Replacements of a normalizer may make a text so many times longer.
MAX_GROWTH = 64.0

#: What models call padding, where the file has no padding of its own.
_PADDING = ("[PAD]", "<pad>", "<PAD>", "<|pad|>", "<|endoftext|>")

#: Opened tokenizers that are kept; each holds its vocabulary.
_KEPT = 8


def read_tokenizer(path: Path, vocab_size: int) -> str:
    """The content of a file that holds a tokenizer. Raises Invalid with what is wrong."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise _refused(f"at most {MAX_BYTES} bytes, got {size}")
    content = path.read_bytes()
    try:
        text = content.decode()
        raw = msgspec.json.decode(content)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise _refused("JSON in UTF-8, got something else") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("model"), dict):
        raise _refused('an object with a "model"')
    growth = _growth(raw.get("normalizer")) * _growth(raw.get("pre_tokenizer"))
    if growth > MAX_GROWTH:
        raise _refused(f"replacements that make a text at most {MAX_GROWTH:g} times longer, got {growth:g}")
    greatest = max(open_tokenizer(text).get_vocab(with_added_tokens=True).values(), default=-1)
    if greatest >= vocab_size:
        raise Invalid(
            f"the tokenizer has indices up to {greatest}, and vocab_size is {vocab_size}: say {greatest + 1}",
            code="bad_tokenizer",
        )
    encode(open_tokenizer(text), np.array(["a", ""], dtype=object))
    return text


@lru_cache(maxsize=_KEPT)
def open_tokenizer(content: str, length: int | None = None, side: Side = "right") -> Tokenizer:
    """`length` counts the special tokens. Raises Invalid where the library can make nothing of it."""
    try:
        tokenizer = Tokenizer.from_str(content)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if length is not None:
            tokenizer.enable_truncation(length, direction=side)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of native code is no Exception
        raise _refused(f"what the tokenizers library reads, got: {str(error)[:300]}") from error
    return tokenizer


def padding_index(content: str) -> int:
    """The file's own, else that of a token that is called so, else 0."""
    padding = msgspec.json.decode(content).get("padding") or {}
    if isinstance(padding.get("pad_id"), int):
        return int(padding["pad_id"])
    vocabulary = open_tokenizer(content).get_vocab(with_added_tokens=True)
    return next((vocabulary[word] for word in _PADDING if word in vocabulary), 0)


def encode(tokenizer: Tokenizer, texts_N: NDArray[Any]) -> Tokens:
    """With the special tokens of the file; a missing text is empty. Raises Invalid where the library
    fails."""
    texts = ["" if text is None else text for text in texts_N]
    try:
        encoded = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of native code is no Exception
        raise Invalid(f"the tokenizer cannot read a text: {str(error)[:300]}", code="bad_text") from error
    lengths_N = np.array([len(row) for row in encoded], dtype=np.int64)
    indices = np.fromiter(chain.from_iterable(encoded), dtype=np.int64, count=int(lengths_N.sum()))
    return Tokens(indices, lengths_N)


def _growth(part: Any) -> float:
    """How many times longer a text may become. Raises Invalid for a replacement of nothing."""
    growth = 1.0
    for member in _members(part):
        kind = member.get("type")
        if kind == "Replace":
            pattern, content = member.get("pattern"), member.get("content")
            literal = pattern.get("String") if isinstance(pattern, dict) else None
            if literal == "":
                raise _refused("a replacement of something, got one of nothing")
            # A regular expression may match between any two characters.
            added = len(str(content)) / len(literal) if literal else 1 + len(str(content))
            growth *= max(1.0, added)
    return growth


def _members(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        yield part
        for inner in part.values():
            if isinstance(inner, list):
                for member in inner:
                    yield from _members(member)


def _refused(expected: str) -> Invalid:
    return Invalid(f"the uploaded tokenizer: expected {expected}", code="bad_tokenizer")
