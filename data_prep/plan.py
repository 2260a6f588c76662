"""Plans: which samples an epoch holds, and in which row each of them lies.

A plan is a pure function of (corpus, split, seed, epoch, row length). It is built shard by shard
in bounded memory, and kept as two flat files that every rank maps into memory:

    samples.bin   one SAMPLE record a sample, in row order
    rows.bin      uint64; row i holds samples[rows[i] : rows[i + 1]]

The epoch visits the rows in the order of a keyed permutation, which needs no table.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.errors import UserError
from data_prep.keyed import Permutation, key_of
from data_prep.manifest import fingerprint, write_json
from data_prep.packing import pack
from data_prep.pairs import SAMPLE, SPECIALS_PER_PAIR, SampleArray, make_samples
from data_prep.shards import OFFSET_TYPE, Corpus, Int64Array

MIN_ROW_TOKENS, MAX_ROW_TOKENS = 16, 1 << 15
_VERSION = 2  # raise it when the same key gives other samples or rows


@dataclass(frozen=True, kw_only=True)
class PlanKey:
    """All that a plan depends on, besides the corpus."""

    seed: int
    epoch: int
    row_tokens: int
    pairs: str = "next_sentence"
    short_share: float = 0.0


class Plan:
    """The rows of one epoch, memory-mapped."""

    def __init__(self, directory: Path, key: PlanKey) -> None:
        facts = json.loads((directory / "plan.json").read_text(encoding="utf-8"))
        self.key = key
        self.num_rows: int = facts["rows"]
        self.num_samples: int = facts["samples"]
        self.num_tokens: int = facts["tokens"]
        shape = (self.num_samples,)
        self._samples = np.memmap(directory / "samples.bin", SAMPLE, "r", shape=shape)
        shape = (self.num_rows + 1,)
        self._rows = np.memmap(directory / "rows.bin", OFFSET_TYPE, "r", shape=shape)
        self._order = Permutation(key_of("rows", key.seed, key.epoch), self.num_rows)

    @property
    def padding_share(self) -> float:
        """Share of the token places in the rows that no sample fills."""
        return 1.0 - self.num_tokens / (self.num_rows * self.key.row_tokens)

    def read(self, positions: Int64Array) -> tuple[SampleArray, Int64Array, Int64Array]:
        """Return the samples of some rows, named by their place in the epoch's order.

        Returns:
            the sample records; the number of each sample within the plan, which keys its
            masks; and, for each sample, the index in `positions` of the row it lies in.
        """
        rows = self._order(positions)
        first = self._rows[rows].astype(np.int64)
        counts = self._rows[rows + 1].astype(np.int64) - first
        ends = np.cumsum(counts)
        numbers = np.repeat(first - (ends - counts), counts) + np.arange(int(ends[-1]))
        return self._samples[numbers], numbers, np.repeat(np.arange(len(rows)), counts)


def open_plan(corpus: Corpus, key: PlanKey, cache: Path) -> Plan:
    """Return a plan from the cache folder, building it first when it is not there.

    The folder's name holds the fingerprint of everything the plan depends on, so a stale plan
    is never found. On several ranks let one build before the others open.

    Raises:
        UserError: when the split cannot make sentence pairs or a row is too short or too long.
    """
    _check(corpus, key)
    facts = {**vars(key), "corpus": corpus.fingerprint, "split": corpus.split, "v": _VERSION}
    directory = cache / f"{corpus.split}_epoch{key.epoch:04d}_{fingerprint(facts)}"
    if not (directory / "plan.json").is_file():
        _build(corpus, key, facts, directory)
    return Plan(directory, key)


def _check(corpus: Corpus, key: PlanKey) -> None:
    if not MIN_ROW_TOKENS <= key.row_tokens <= MAX_ROW_TOKENS:
        raise UserError(
            f"Rows of {key.row_tokens} tokens are not possible: "
            f"choose train.row_tokens from {MIN_ROW_TOKENS} to {MAX_ROW_TOKENS}."
        )
    if corpus.num_documents < 2:
        raise UserError(
            f"The {corpus.split} split of {corpus.path} has {corpus.num_documents} document(s), "
            "but next-sentence pairs need two: add documents or change corpus.validation_share."
        )


def _build(corpus: Corpus, key: PlanKey, facts: dict[str, object], directory: Path) -> None:
    building = directory.with_name(f"{directory.name}.{os.getpid()}.partial")
    # A job that was killed here and restarted in its container may have the same process id.
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        counts = _write_tables(corpus, key, building)
        write_json(building / "plan.json", {**facts, **counts})
        if not directory.exists():
            building.rename(directory)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_tables(corpus: Corpus, key: PlanKey, building: Path) -> dict[str, int]:
    num_samples = num_rows = num_tokens = 0
    with (
        (building / "samples.bin").open("wb") as samples_file,
        (building / "rows.bin").open("wb") as rows_file,
    ):
        rows_file.write(np.zeros(1, OFFSET_TYPE).tobytes())
        for index, shard in enumerate(corpus.shards):
            # A shard of one document finds its unrelated pairs in the next shard.
            alone = shard.counts.documents < 2
            partner = corpus.shards[(index + 1) % len(corpus.shards)] if alone else shard
            samples = make_samples(shard, partner, key.row_tokens, key.seed, key.epoch)
            lengths = SPECIALS_PER_PAIR + samples["a_length"].astype(np.int64) + samples["b_length"]
            pack_key = key_of("pack", key.seed, key.epoch, shard.counts.name)
            order, offsets = pack(lengths, key.row_tokens, pack_key)
            samples_file.write(samples[order].tobytes())
            rows_file.write((offsets[1:] + num_samples).astype(OFFSET_TYPE).tobytes())
            num_samples += len(samples)
            num_rows += len(offsets) - 1
            num_tokens += int(lengths.sum())
    if num_rows == 0:
        raise UserError(
            f"The {corpus.split} split of {corpus.path} makes no pairs: give more text."
        )
    return {"samples": num_samples, "rows": num_rows, "tokens": num_tokens}
