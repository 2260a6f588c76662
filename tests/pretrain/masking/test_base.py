"""Masking: rates, replacements, and decisions that depend on the sample alone."""

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from data_prep.counter_rng import key_of
from pretrain.masking.adaptive import Adaptive
from pretrain.masking.base import Masking, Policy, Uniform, ranges, rate_at
from pretrain.masking.chinese_words import ChineseWords
from pretrain.masking.packed_rows import POSITION_BITS, PackedRows
from pretrain.masking.spans import Spans
from pretrain.masking.sparse import Sparse
from pretrain.masking.whole_word import WholeWords, WordTable
from tests.sample_layouts import (
    MASK,
    SPECIALS,
    UNK,
    assert_share,
    draw_samples,
    lay_out,
    ordinary_tokens,
)

SAMPLES, POSITIONS = 600, 200
VOCABULARY = np.array([7, 11, 13, 17, 500, 65_535, 100_000])
TOKEN = 50  # neither [MASK] nor a replacement, so that every change shows
KEY = key_of("mask", 0, 0)
V = 100
Int64Array = npt.NDArray[np.int64]

MASKABLE = np.arange(100_001) >= SPECIALS
# In this made-up vocabulary every third id continues a word.
TABLE = WordTable(begins=np.arange(V) % 3 > 0, closes=np.arange(V) < 20)
HAN = ChineseWords({i: "中国人民大学生活"[i % 8] for i in range(60, V)}, np.arange(V) >= 60)
COUNTS = np.where(np.arange(V) < SPECIALS, 0, 1000.0 / (1 + np.arange(V)))
POLICIES: dict[str, Policy] = {
    "uniform": Uniform(),
    "whole_word": WholeWords(TABLE),
    "spans": Spans(TABLE),
    "chinese": WholeWords(dataclasses.replace(TABLE, chinese=HAN)),
    "adaptive": Adaptive(
        np.where(np.arange(V) < SPECIALS, 0, 1000.0 / (1 + np.arange(V))), -0.5, 1
    ),
    "sparse": Sparse(5, MASKABLE[:V]),
}


def masking(policy: Policy, as_mask: float = 0.8, as_random: float = 0.1) -> Masking:
    return Masking(
        policy=policy,
        as_mask=as_mask,
        as_random=as_random,
        mask_id=MASK,
        vocabulary=VOCABULARY,
        maskable=MASKABLE,
    )


def apply(
    policy: Masking, rows: PackedRows, key: np.uint64, rate: float
) -> tuple[Int64Array, Int64Array, Int64Array]:
    """Return the masked positions, their labels and the ids shown there."""
    masked = policy.apply(rows, key, rate)
    positions = masked.masked_positions
    return positions, masked.mlm_labels, masked.input_ids[positions]


def plain_text() -> PackedRows:
    """Return many samples of one and the same token."""
    return lay_out([(number, [TOKEN] * POSITIONS, []) for number in range(SAMPLES)])


@pytest.mark.parametrize(
    ("rate", "as_mask", "as_random"),
    [(0.15, 0.8, 0.1), (0.4, 0.5, 0.5), (0.15, 1.0, 0.0), (0.01, 0.0, 1.0), (0.5, 0.0, 0.0)],
)
def test_masking_and_replacement_rates(rate: float, as_mask: float, as_random: float) -> None:
    """Tokens are masked at the rate, and replaced at the given shares."""
    masked = masking(Uniform(), as_mask, as_random)
    positions, labels, shown = apply(masked, plain_text(), KEY, rate)
    assert (labels == TOKEN).all() and len(positions) == len(labels) == len(shown)
    assert_share(len(positions), SAMPLES * POSITIONS, rate)
    masks, kept = (int((shown == token).sum()) for token in (MASK, TOKEN))
    assert_share(masks, len(positions), as_mask)
    assert_share(len(positions) - masks - kept, len(positions), as_random)


def test_replacements_uniform_over_vocabulary() -> None:
    """Random replacements are uniform over the given ids."""
    _, _, shown = apply(masking(Uniform(), 0.2, 0.8), plain_text(), KEY, 0.3)
    drawn = shown[shown != MASK]
    assert set(drawn.tolist()) == set(VOCABULARY.tolist())
    for token in VOCABULARY:
        assert_share(int((drawn == token).sum()), len(drawn), 1 / len(VOCABULARY))


def test_uniform_draws_are_independent() -> None:
    """The draws of neighbouring tokens and samples are uncorrelated."""
    rows = plain_text()
    chosen = np.zeros(len(rows.input_ids))
    chosen[Uniform().choose(rows, KEY, 0.15)] = 1
    table = chosen[ordinary_tokens(rows)].reshape(SAMPLES, POSITIONS)
    for first, second in [(table[:, :-1], table[:, 1:]), (table[:-1], table[1:])]:
        correlation = np.corrcoef(first.ravel(), second.ravel())[0, 1]
        assert abs(correlation) < 5 / np.sqrt(first.size)


@pytest.mark.parametrize("name", POLICIES)
def test_mask_independent_of_batch(name: str) -> None:
    """A sample's mask is the same whatever else is in the batch."""
    samples = draw_samples(60, V)
    whole = lay_out(samples, padding=2)
    policy = masking(POLICIES[name])
    positions, labels, shown = apply(policy, whole, KEY, 0.2)
    owners = np.searchsorted(whole.sample_starts, positions, side="right") - 1
    assert len(positions) > 60
    for parts in ([7], [59, 3, 12], list(range(30, 60))):
        alone = lay_out([samples[index] for index in parts], padding=0)
        found = apply(policy, alone, KEY, 0.2)
        expected = [
            (alone.sample_starts[nth] + position - whole.sample_starts[index], label, token)
            for nth, index in enumerate(parts)
            for position, label, token in zip(
                positions[owners == index], labels[owners == index], shown[owners == index],
                strict=True,
            )
        ]  # fmt: skip
        assert list(zip(*found, strict=True)) == expected


@pytest.mark.parametrize("name", POLICIES)
def test_masked_positions_ascending_and_ordinary(name: str) -> None:
    """Masked positions are ascending and hold no special token."""
    samples = [(n, [UNK, *a], [*b, UNK] if len(b) else []) for n, a, b in draw_samples(80, V)]
    rows = lay_out(samples, padding=3)
    positions, labels, _ = apply(masking(POLICIES[name]), rows, KEY, 0.5)
    assert (np.diff(positions) > 0).all()
    assert (labels >= SPECIALS).all() and np.array_equal(labels, rows.input_ids[positions])


@pytest.mark.parametrize("name", POLICIES)
def test_other_key_other_mask(name: str) -> None:
    """Another key masks other tokens."""
    rows = lay_out(draw_samples(200, V))
    first, second = (
        set(apply(masking(POLICIES[name]), rows, key_of("mask", 0, epoch), 0.15)[0].tolist())
        for epoch in (0, 1)
    )
    # Independent draws share about a sixth of their tokens, more where probabilities differ.
    assert len(first & second) < 0.45 * min(len(first), len(second))


@pytest.mark.parametrize("name", POLICIES)
def test_apply_leaves_input_unchanged(name: str) -> None:
    """`apply` does not modify the ids it is given."""
    rows = lay_out(draw_samples(20, V))
    before = rows.input_ids.copy()
    masking(POLICIES[name]).apply(rows, KEY, 0.9)
    assert np.array_equal(rows.input_ids, before)


def test_counters_distinct_up_to_longest_row() -> None:
    """Draws differ between samples and positions up to the longest row."""
    last = (1 << POSITION_BITS) - 1
    pairs = np.array([(0, 0), (0, last), (1, 0), (1, last), (last, 0)], np.uint64)
    counters = (pairs[:, 0] << np.uint64(POSITION_BITS)) | pairs[:, 1]
    rows = dataclasses.replace(lay_out([(0, [TOKEN] * 3, [])]), counters=counters)
    masks = np.zeros((200, 5), bool)
    for number, row in enumerate(masks):
        row[Uniform().choose(rows, key_of(number), 0.5)] = True
    assert len(np.unique(masks.T, axis=0)) == 5


def test_rate_at_is_linear() -> None:
    """The rate is linear in the step, and constant without an end."""
    assert [rate_at(0.3, 0.1, step, 5) for step in range(5)] == pytest.approx(
        [0.3, 0.25, 0.2, 0.15, 0.1]
    )
    assert {rate_at(0.3, None, step, 5) for step in range(5)} == {0.3}
    assert rate_at(0.3, 0.1, 0, 1) == 0.3


def test_ranges_concatenate() -> None:
    """Ranges follow one another; empty ones add nothing."""
    assert ranges(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert ranges(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []
