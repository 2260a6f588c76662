"""Masking: the right rates, and the same decision for a token wherever it turns up."""

import numpy as np
import numpy.typing as npt
import pytest

from data_prep.keyed import key_of
from pretrain.masking import MaskPolicy, mask_tokens

MASK_ID, SAMPLES, POSITIONS = 4, 600, 200
SIZE = SAMPLES * POSITIONS
VOCABULARY = np.array([7, 11, 13, 17, 500, 65_535, 100_000])
TOKEN = 50  # neither [MASK] nor a replacement, so that every change shows
KEY = key_of("mask", 0, 0)
Int64Array = npt.NDArray[np.int64]


def policy(rate: float = 0.15, as_mask: float = 0.8, as_random: float = 0.1) -> MaskPolicy:
    return MaskPolicy(
        rate=rate, as_mask=as_mask, as_random=as_random, mask_id=MASK_ID, vocabulary=VOCABULARY
    )


def mask_everything(
    rule: MaskPolicy, key: np.uint64 = KEY
) -> tuple[npt.NDArray[np.bool_], Int64Array]:
    samples, positions = np.divmod(np.arange(SIZE), POSITIONS)
    return mask_tokens(np.full(SIZE, TOKEN), samples, positions, key, rule)


def assert_share(count: int, total: int, share: float) -> None:
    """Five deviations of a binomial: a fair draw fails once in two million times."""
    assert abs(count - total * share) < 5 * np.sqrt(total * share * (1 - share)) + 1e-9


@pytest.mark.parametrize(
    ("rate", "as_mask", "as_random"),
    [(0.15, 0.8, 0.1), (0.4, 0.5, 0.5), (0.15, 1.0, 0.0), (0.01, 0.0, 1.0), (0.5, 0.0, 0.0)],
)
def test_tokens_are_chosen_and_shown_at_their_rates(
    rate: float, as_mask: float, as_random: float
) -> None:
    chosen, shown = mask_everything(policy(rate, as_mask, as_random))
    count = int(chosen.sum())
    assert_share(count, SIZE, rate)
    masks, kept = (int((shown[chosen] == token).sum()) for token in (MASK_ID, TOKEN))
    assert_share(masks, count, as_mask)
    assert_share(count - masks - kept, count, as_random)


def test_tokens_that_are_not_chosen_are_shown_as_they_are() -> None:
    chosen, shown = mask_everything(policy())
    assert (shown[~chosen] == TOKEN).all()


def test_replacements_come_from_the_whole_vocabulary_and_nothing_else() -> None:
    chosen, shown = mask_everything(policy(rate=0.3, as_mask=0.2, as_random=0.8))
    drawn = shown[chosen & (shown != MASK_ID)]
    assert set(drawn.tolist()) == set(VOCABULARY.tolist())
    for token in VOCABULARY:
        assert_share(int((drawn == token).sum()), len(drawn), 1 / len(VOCABULARY))


def test_whether_a_token_is_chosen_says_nothing_about_its_neighbours() -> None:
    chosen = mask_everything(policy())[0].astype(np.float64).reshape(SAMPLES, POSITIONS)
    pairs = [(chosen[:, :-1], chosen[:, 1:]), (chosen[:-1], chosen[1:])]
    for first, second in pairs:
        correlation = np.corrcoef(first.ravel(), second.ravel())[0, 1]
        assert abs(correlation) < 5 / np.sqrt(first.size)


def test_a_mask_depends_on_sample_and_position_alone() -> None:
    samples, positions = np.divmod(np.arange(SIZE), POSITIONS)
    tokens = samples * 3 + positions
    chosen, shown = mask_tokens(tokens, samples, positions, KEY, policy())
    order = np.argsort(np.sin(np.arange(SIZE)))
    for part in (order, order[:7], order[1000:1001], order[:0]):
        alone = mask_tokens(tokens[part], samples[part], positions[part], KEY, policy())
        assert np.array_equal(alone[0], chosen[part])
        assert np.array_equal(alone[1], shown[part])


def test_another_key_masks_other_tokens() -> None:
    first, second = (mask_everything(policy(), key_of("mask", 0, epoch))[0] for epoch in (0, 1))
    both = int((first & second).sum())
    assert_share(both, SIZE, 0.15**2)


def test_samples_and_positions_are_told_apart_up_to_the_longest_row() -> None:
    last = (1 << 15) - 1
    samples, positions = np.array([0, 0, 1, 1, last]), np.array([0, last, 0, last, 0])
    masks = [
        mask_tokens(np.full(5, TOKEN), samples, positions, key_of(k), policy(rate=0.5))[0]
        for k in range(200)
    ]
    assert len(np.unique(np.array(masks).T, axis=0)) == 5


def test_the_tokens_passed_in_stay_as_they_were() -> None:
    tokens = np.full(100, TOKEN)
    mask_tokens(tokens, np.zeros(100, np.int64), np.arange(100), KEY, policy(rate=0.9))
    assert (tokens == TOKEN).all()
