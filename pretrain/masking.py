"""Masking: which tokens a model must predict, and what it sees in their place.

Every decision is a pure function of (key, sample, position): the same at any number of ranks,
workers and restarts, whatever else is in the batch.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_prep.keyed import hash64
from data_prep.plan import MAX_ROW_TOKENS
from data_prep.shards import Int64Array

_POSITION_BITS = np.uint64(MAX_ROW_TOKENS.bit_length() - 1)
_CHOOSE_BITS, _SHOW_BITS, _WORD_BITS = 24, 16, 24  # parts of one 64-bit draw


@dataclass(frozen=True, kw_only=True)
class MaskPolicy:
    """Uniform masking as in BERT (arXiv 1810.04805, section 3.1: 15 %, 80/10/10)."""

    rate: float
    as_mask: float
    as_random: float
    mask_id: int
    vocabulary: Int64Array  # the ids that random replacements are drawn from


def mask_tokens(
    tokens: Int64Array,
    samples: Int64Array,
    positions: Int64Array,
    key: np.uint64,
    policy: MaskPolicy,
) -> tuple[npt.NDArray[np.bool_], Int64Array]:
    """Choose tokens to predict and what is shown in their place.

    Args:
        tokens: ordinary token ids, [N]; special tokens are not passed in, so they are
            never masked.
        samples: number of each token's sample within its epoch, [N].
        positions: place of each token within its sample, [N].
        key: keyed on the purpose, the seed and the epoch.
        policy: rates and vocabulary.

    Returns:
        `chosen` [N], and `shown` [N], the ids that the model sees.
    """
    counters = (samples.astype(np.uint64) << _POSITION_BITS) | positions.astype(np.uint64)
    bits = hash64(key, counters)
    chosen = (bits >> np.uint64(64 - _CHOOSE_BITS)) < np.uint64(policy.rate * 2**_CHOOSE_BITS)

    picked = bits[chosen]
    show = ((picked >> np.uint64(_WORD_BITS)) & np.uint64(2**_SHOW_BITS - 1)) * 2.0**-_SHOW_BITS
    word = (picked & np.uint64(2**_WORD_BITS - 1)) * np.uint64(len(policy.vocabulary))
    word >>= np.uint64(_WORD_BITS)
    replacement = np.where(show < policy.as_mask, policy.mask_id, tokens[chosen])
    random_share = (show >= policy.as_mask) & (show < policy.as_mask + policy.as_random)
    replacement[random_share] = policy.vocabulary[word[random_share].astype(np.int64)]

    shown = tokens.copy()
    shown[chosen] = replacement
    return chosen, shown
