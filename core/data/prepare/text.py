"""Strings to tokens: words, bytes, cut and padded.

N rows, T tokens. A word is a run of letters, digits and underscores; a run of any other marks but white
space is a word too (`\\w+|[^\\w\\s]+`).
"""

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.data.prepare.forms import UNKNOWN
from core.data.prepare.steps import Side

WORD = re.compile(r"\w+|[^\w\s]+")

#: The index of the first word of a vocabulary, after padding and unknown.
FIRST = 2


@dataclass(frozen=True)
class Tokens:
    """The indices of all rows one after the other, and how many each row has."""

    indices: NDArray[np.int64]
    lengths_N: NDArray[np.int64]


def vocabulary(texts: Iterable[str | None], max_tokens: int, min_frequency: int) -> list[str]:
    """The most frequent words, of equally frequent ones the first by codepoint; padding and unknown take two
    of `max_tokens`."""
    chunks: Counter[str] = Counter()
    for text in texts:
        if text is not None:
            chunks.update(text.split())
    counts: Counter[str] = Counter()
    for chunk, count in chunks.items():  # far fewer than there are words
        for word in WORD.findall(chunk):
            counts[word] += count
    words = [word for word, count in counts.items() if count >= min_frequency]
    return sorted(words, key=lambda word: (-counts[word], word))[: max_tokens - FIRST]


def word_indices(texts_N: NDArray[Any], places: Mapping[str, int]) -> Tokens:
    """A missing text has no words."""
    indices, lengths = array("q"), array("q")
    indices_of = _Chunks(places)
    for text in texts_N:
        before = len(indices)
        if text is not None:
            indices.extend(chain.from_iterable(map(indices_of.__getitem__, text.split())))
        lengths.append(len(indices) - before)
    return Tokens(_int64(indices), _int64(lengths))


def byte_indices(texts_N: NDArray[Any]) -> Tokens:
    encoded = [b"" if text is None else text.encode() for text in texts_N]
    indices = np.frombuffer(b"".join(encoded), dtype=np.uint8).astype(np.int64) + 1
    return Tokens(indices, np.array([len(row) for row in encoded], dtype=np.int64))


def truncate(tokens: Tokens, length: int, side: Side) -> Tokens:
    """`side` is where tokens are cut off."""
    places = _places(tokens)
    if side == "left":
        places -= np.repeat(tokens.lengths_N - length, tokens.lengths_N).clip(min=0)
        is_kept = places >= 0
    else:
        is_kept = places < length
    return Tokens(tokens.indices[is_kept], tokens.lengths_N.clip(max=length))


def pad(tokens: Tokens, length: int, side: Side, value: int) -> NDArray[np.int64]:
    """[N, T] for rows of at most `length` tokens; `side` is where the padding stands."""
    padded_NT = np.full((len(tokens.lengths_N), length), value, dtype=np.int64)
    rows = np.repeat(np.arange(len(tokens.lengths_N)), tokens.lengths_N)
    places = _places(tokens)
    if side == "left":
        places += np.repeat(length - tokens.lengths_N, tokens.lengths_N)
    padded_NT[rows, places] = tokens.indices
    return padded_NT


class _Chunks(dict[str, list[int]]):
    """The indices of the words between two white spaces, split once however often they occur."""

    def __init__(self, places: Mapping[str, int]) -> None:
        super().__init__()
        self._places = places

    def __missing__(self, chunk: str) -> list[int]:
        self[chunk] = [self._places.get(word, UNKNOWN) for word in WORD.findall(chunk)]
        return self[chunk]


def _places(tokens: Tokens) -> NDArray[np.int64]:
    """The place of each token in its row."""
    starts_N = tokens.lengths_N.cumsum() - tokens.lengths_N
    return np.arange(len(tokens.indices)) - np.repeat(starts_N, tokens.lengths_N)


def _int64(values: "array[int]") -> NDArray[np.int64]:
    return np.frombuffer(values, dtype=np.int64) if len(values) else np.zeros(0, dtype=np.int64)
