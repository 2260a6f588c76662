"""Sparse masking: a fixed number of tokens of each sample, from a list of allowed ones."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Int64Array
from data_prep.counter_rng import hash64
from data_prep.errors import UserError
from data_prep.tokenizers.folder import LoadedTokenizer
from pretrain.masking.packed_rows import PackedRows


@dataclass(frozen=True)
class Sparse:
    """Exactly `count` tokens of each sample, or all that are allowed where there are fewer."""

    count: int
    allowed: npt.NDArray[np.bool_]  # by id; false for special tokens

    def choose(self, rows: PackedRows, key: np.uint64, rate: float) -> Int64Array:
        """Choose the `count` candidates of each sample with the smallest draws, at any rate."""
        candidates = np.flatnonzero(self.allowed[rows.input_ids])
        owners = np.searchsorted(rows.sample_starts, candidates, side="right") - 1
        order = np.lexsort((hash64(key, rows.counters[candidates]), owners))
        sizes = np.bincount(owners, minlength=len(rows.sample_starts))
        rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return np.sort(candidates[order[rank < self.count]])


def read_allowed(
    path: Path | None, tokenizer: LoadedTokenizer, maskable: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Return which ids may be chosen: all that are maskable, or the tokens listed in a file.

    Args:
        path: a text file with one token a line, written as in the vocabulary; None allows all.
        tokenizer: its vocabulary has the tokens.
        maskable: by id, false for special tokens.

    Raises:
        UserError: for a file that cannot be read or lists nothing, or for the first token that
            the vocabulary lacks or that is special.
    """
    if path is None:
        return maskable
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"mask.allowed_tokens {path} cannot be read: {error}.") from error
    allowed = np.zeros_like(maskable)
    for number, line in enumerate(lines, start=1):
        if token := line.strip():
            allowed[_id_of(token, number, path, tokenizer, maskable)] = True
    if not allowed.any():
        raise UserError(f"mask.allowed_tokens {path} lists no token: write one on each line.")
    return allowed


def _id_of(
    token: str,
    number: int,
    path: Path,
    tokenizer: LoadedTokenizer,
    maskable: npt.NDArray[np.bool_],
) -> int:
    """Return the id of the token on a line of the file."""
    index = tokenizer.backend.token_to_id(token)
    if index is None or not maskable[index]:
        fault = "is not in the vocabulary" if index is None else "is a special token"
        raise UserError(
            f"Line {number} of mask.allowed_tokens {path} names {token!r}, which "
            f"{fault} of {tokenizer.path}: remove the line or correct it."
        )
    return index
