"""Batches: the rows of a step, as tensors; a pure function of (corpus, seed, step).

Rows are numbered through all epochs: step s takes rows s·R to (s+1)·R. Whatever the number of
ranks and the size of their micro-batches, the union over ranks is therefore the same global
batch, and every rank gets the same number of rows in every step. There is no loader state.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from data_prep.errors import UserError
from data_prep.keyed import key_of
from data_prep.pairs import SPECIALS_PER_PAIR, SampleArray
from data_prep.plan import Plan, PlanKey, open_plan
from data_prep.shards import Corpus, Int64Array
from data_prep.tokenizer import LoadedTokenizer
from pretrain.config import MaskOptions
from pretrain.masking import MaskPolicy, mask_tokens

NEXT_LABEL, UNRELATED_LABEL = 0, 1  # as in transformers' `next_sentence_label`


@dataclass(frozen=True)
class Batch:
    """One micro-batch of packed rows. B rows, T tokens a row, M masked tokens, S samples."""

    input_ids: torch.Tensor  # [B, T] int64, [PAD] where no sample lies
    token_types: torch.Tensor  # [B, T] int64, 1 in segment B
    positions: torch.Tensor  # [B, T] int64, restarts with every sample
    sample_ids: torch.Tensor  # [B, T] int32, 1, 2, ... within a row; 0 is padding
    masked: torch.Tensor  # [M] int64, places in the flattened [B * T]
    mlm_labels: torch.Tensor  # [M] int64
    firsts: torch.Tensor  # [S] int64, places of [CLS] in the flattened [B * T]
    nsp_labels: torch.Tensor  # [S] int64

    @property
    def counts(self) -> dict[str, int]:
        """What losses are divided by: masked tokens, samples, and real tokens."""
        return {
            "masked": len(self.masked),
            "samples": len(self.firsts),
            "tokens": int((self.sample_ids > 0).sum()),
        }

    def to(self, device: torch.device) -> "Batch":
        """Copy to a device, from pinned memory and without waiting when it is a GPU."""
        if device.type == "cpu":
            return self
        moved = (
            getattr(self, field.name).pin_memory().to(device, non_blocking=True)
            for field in fields(self)
        )
        return Batch(*moved)


class BatchSource:
    """Reads batches of one split.

    Args:
        corpus: the split to read.
        tokenizer: special ids, and the vocabulary of random replacements.
        mask: masking rates.
        seed: keys order, pairs and masks.
        row_tokens: T, tokens of a row.
        cache: folder for plans.
        plans_first: called before a plan is opened, with the function that builds it; on
            several ranks it lets rank 0 build while the others wait.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: LoadedTokenizer,
        mask: MaskOptions,
        *,
        seed: int,
        row_tokens: int,
        cache: Path,
        plans_first: Callable[[Callable[[], object]], None] = lambda build: None,
    ) -> None:
        self.row_tokens = row_tokens
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._policy = MaskPolicy(
            rate=mask.rate,
            as_mask=mask.as_mask,
            as_random=mask.as_random,
            mask_id=tokenizer.mask_id,
            vocabulary=tokenizer.ordinary_ids,
        )
        self._seed = seed
        self._cache = cache
        self._plans_first = plans_first
        self._plans: list[Plan] = []
        self._ends: list[int] = []  # number of the first row after each epoch

    def plan(self, epoch: int) -> Plan:
        """Return the plan of an epoch, building plans up to it as needed (all ranks)."""
        while len(self._plans) <= epoch:
            self._open_next_plan()
        return self._plans[epoch]

    def epoch_of(self, row: int) -> int:
        """Return the epoch that holds a row, numbered through all epochs (all ranks)."""
        while not self._ends or self._ends[-1] <= row:
            self._open_next_plan()
        return int(np.searchsorted(self._ends, row, side="right"))

    def step(
        self, step: int, batch_rows: int, rank: int, world_size: int, micro_rows: int
    ) -> list[Batch]:
        """Return this rank's micro-batches of a step, counted from 0.

        All ranks call this for the same steps, so that they agree on when a plan is built.
        """
        self.epoch_of((step + 1) * batch_rows - 1)
        first = step * batch_rows + rank * micro_rows
        starts = range(first, first + batch_rows, world_size * micro_rows)
        return [self.rows(np.arange(start, start + micro_rows), micro_rows) for start in starts]

    def rows(self, numbers: Int64Array, size: int) -> Batch:
        """Return the batch of some rows; it is filled up with blank rows to `size`."""
        epochs = np.array([self.epoch_of(int(number)) for number in numbers], np.int64)
        build = _RowBuilder(size, self.row_tokens, self._tokenizer)
        for epoch in np.unique(epochs):
            here = np.flatnonzero(epochs == epoch)
            start = self._ends[epoch - 1] if epoch else 0
            samples, ids, rows = self.plan(int(epoch)).read(numbers[here] - start)
            mask_key = key_of("mask", self._seed, int(epoch))
            build.add(samples, ids, here[rows], self._corpus, mask_key, self._policy)
        return build.batch()

    def _open_next_plan(self) -> None:
        key = PlanKey(seed=self._seed, epoch=len(self._plans), row_tokens=self.row_tokens)
        self._plans_first(lambda: open_plan(self._corpus, key, self._cache))
        self._plans.append(open_plan(self._corpus, key, self._cache))
        self._ends.append((self._ends[-1] if self._ends else 0) + self._plans[-1].num_rows)


class _RowBuilder:
    """Writes samples into rows, all at once, with numpy."""

    def __init__(self, rows: int, row_tokens: int, tokenizer: LoadedTokenizer) -> None:
        self._shape = (rows, row_tokens)
        self._tokenizer = tokenizer
        size = rows * row_tokens
        self._input_ids = np.full(size, tokenizer.pad_id, np.int64)
        self._token_types = np.zeros(size, np.int64)
        self._positions = np.zeros(size, np.int64)
        self._sample_ids = np.zeros(size, np.int32)
        self._masked: list[Int64Array] = []
        self._labels: list[Int64Array] = []
        self._firsts: list[Int64Array] = []
        self._nsp: list[Int64Array] = []

    def add(
        self,
        samples: SampleArray,
        numbers: Int64Array,
        rows: Int64Array,
        corpus: Corpus,
        mask_key: np.uint64,
        policy: MaskPolicy,
    ) -> None:
        """Lay samples, grouped by row, into their rows and mask them."""
        a_length = samples["a_length"].astype(np.int64)
        b_length = samples["b_length"].astype(np.int64)
        lengths = a_length + b_length + SPECIALS_PER_PAIR
        first, nth = _places(lengths, rows, self._shape[1])

        everywhere = _ranges(first, lengths)
        self._positions[everywhere] = _ranges(np.zeros_like(first), lengths)
        self._sample_ids[everywhere] = np.repeat(nth + 1, lengths)
        b_first = first + a_length + 2
        self._token_types[_ranges(b_first, b_length + 1)] = 1
        self._input_ids[first] = self._tokenizer.cls_id
        self._input_ids[b_first - 1] = self._tokenizer.sep_id
        self._input_ids[b_first + b_length] = self._tokenizer.sep_id

        starts = np.concatenate([samples["a_start"], samples["b_start"]])
        segment_lengths = np.concatenate([a_length, b_length])
        words = _ranges(np.concatenate([first + 1, b_first]), segment_lengths)
        tokens = corpus.gather(starts, segment_lengths)
        owners = np.repeat(np.concatenate([numbers, numbers]), segment_lengths)
        chosen, shown = mask_tokens(tokens, owners, self._positions[words], mask_key, policy)
        self._input_ids[words] = shown
        self._masked.append(words[chosen])
        self._labels.append(tokens[chosen])
        self._firsts.append(first)
        self._nsp.append(np.where(samples["is_next"], NEXT_LABEL, UNRELATED_LABEL))

    def batch(self) -> Batch:
        """Return what has been added; masked tokens are in the order of their places."""
        masked = np.concatenate(self._masked) if self._masked else np.zeros(0, np.int64)
        labels = np.concatenate(self._labels) if self._labels else np.zeros(0, np.int64)
        order = np.argsort(masked, kind="stable")
        arrays = (
            self._input_ids.reshape(self._shape),
            self._token_types.reshape(self._shape),
            self._positions.reshape(self._shape),
            self._sample_ids.reshape(self._shape),
            masked[order],
            labels[order],
            np.concatenate(self._firsts) if self._firsts else np.zeros(0, np.int64),
            np.concatenate(self._nsp).astype(np.int64) if self._nsp else np.zeros(0, np.int64),
        )
        return Batch(*(torch.from_numpy(array) for array in arrays))


def check_divisible(batch_rows: int, micro_rows: int, world_size: int) -> int:
    """Return the micro-batches a rank computes in each step.

    Raises:
        UserError: when the global batch does not divide evenly over ranks and micro-batches.
    """
    if batch_rows % (micro_rows * world_size):
        raise UserError(
            f"train.batch_rows {batch_rows} is not divisible by train.micro_rows {micro_rows} "
            f"times {world_size} rank(s): choose a multiple of {micro_rows * world_size}."
        )
    return batch_rows // (micro_rows * world_size)


def _places(
    lengths: Int64Array, rows: Int64Array, row_tokens: int
) -> tuple[Int64Array, Int64Array]:
    """Return each sample's flat place of [CLS] and its number within its row."""
    ends = np.cumsum(lengths)
    opens_row = np.concatenate([[True], rows[1:] != rows[:-1]])
    group = np.cumsum(opens_row) - 1
    before_row = (ends - lengths)[opens_row][group]
    nth = np.arange(len(rows)) - np.flatnonzero(opens_row)[group]
    return rows * row_tokens + (ends - lengths) - before_row, nth


def _ranges(starts: Int64Array, lengths: Int64Array) -> Int64Array:
    """Return `start, start + 1, ...` for each range, one after another."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(int(ends[-1]))
