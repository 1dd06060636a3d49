"""The hash: published values, the same bits for scalars and tensors, orders that depend on nothing else."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from core.nets.randomness import hash_rows, hash_words, mix, permutation

WORDS = st.integers(0, 2**63 - 1)


def test_mix_gives_the_published_stream_of_splitmix64() -> None:
    # Seed 1234567, from https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64
    state, stream = 1234567, []
    for _ in range(5):
        stream.append(mix(state))
        state += 0x9E3779B97F4A7C15
    assert stream == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@given(WORDS, WORDS, st.lists(WORDS, min_size=1, max_size=5), st.integers(0, 2**40))
def test_tensor_and_scalar_hashes_have_the_same_bits(
    seed: int, epoch: int, indices: list[int], draw: int
) -> None:
    rows = hash_rows(seed, epoch, torch.tensor(indices), draw).tolist()
    assert [row % 2**64 for row in rows] == [hash_words(seed, epoch, index, draw) for index in indices]


def test_every_word_changes_the_hash() -> None:
    hashes = {
        hash_words(*words) for words in [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    }
    assert len(hashes) == 5


def test_bits_of_the_hash_are_fair() -> None:
    # 64 bits of 20,000 rows: each is set half the time within five standard deviations.
    rows_N = hash_rows(7, 3, torch.arange(20_000), 0)
    for bit in range(64):
        share = ((rows_N >> bit) & 1).double().mean().item()
        assert abs(share - 0.5) < 5 * 0.5 / 20_000**0.5, bit


def test_a_permutation_is_a_function_of_seed_and_epoch_alone() -> None:
    torch.manual_seed(1)
    first = permutation(5, 2, 1000)
    torch.manual_seed(2)
    assert torch.equal(first, permutation(5, 2, 1000))
    assert sorted(first.tolist()) == list(range(1000))
    assert not torch.equal(first, permutation(5, 3, 1000))
    assert not torch.equal(first, permutation(6, 2, 1000))


def test_orders_and_hashes_stay_what_they_are() -> None:
    # A change here would reorder the rows and redraw the pixels of every job that is resumed.
    assert permutation(0, 0, 8).tolist() == [4, 5, 2, 0, 6, 7, 3, 1]
    assert hash_words(1729, 3, 42, 0) == 16285002640575554470


def test_a_permutation_of_nothing_is_empty() -> None:
    assert permutation(0, 0, 0).tolist() == []
