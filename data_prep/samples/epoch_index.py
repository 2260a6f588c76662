"""The epoch index: the samples of an epoch, and the row of each.

It is a pure function of the corpus (split and weights included) and an `EpochIndexKey`. It is
built shard by shard in bounded memory, in a few seconds for 100 million tokens, and cached as two
flat files that every rank maps into memory:

    samples.bin   one SAMPLE record a sample, in row order
    rows.bin      uint64; row i holds samples[rows[i] : rows[i + 1]]

The epoch takes the rows in the order of a keyed permutation, which needs no table.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np

from data_prep.corpus.shards import OFFSET_TYPE, Corpus, Int64Array
from data_prep.counter_rng import Permutation, key_of
from data_prep.disk import clear_disk_errors
from data_prep.errors import UserError
from data_prep.manifest import fingerprint, write_json
from data_prep.progress import log
from data_prep.samples.document_sampling import sampled_documents
from data_prep.samples.packing import pack, underfull_rows
from data_prep.samples.sentence_pairs import SAMPLE, Pairs, SampleArray, make_samples, sample_tokens

MIN_ROW_TOKENS, MAX_ROW_TOKENS = 16, 1 << 15
_PARTIAL = ".partial"
_LEFTOVER_S = 86_400.0
_READ_SAMPLES = 1 << 20
_FACTS = "plan.json"
_VERSION = 3  # raise it when the same key gives other samples or rows


@dataclass(frozen=True, kw_only=True)
class EpochIndexKey:
    """All that an epoch index depends on, besides the corpus."""

    seed: int
    epoch: int
    row_tokens: int
    pairs: Pairs = "next_sentence"
    short_share: float = 0.0


class EpochIndex:
    """The rows of one epoch, memory-mapped."""

    def __init__(self, directory: Path, key: EpochIndexKey) -> None:
        facts = json.loads((directory / _FACTS).read_text(encoding="utf-8"))
        self.key = key
        self.num_rows: int = facts["rows"]
        self.num_samples: int = facts["samples"]
        self.num_tokens: int = facts["tokens"]
        self._longest_sample: int | None = facts.get("longest_sample")
        shape = (self.num_samples,)
        self._samples = np.memmap(directory / "samples.bin", SAMPLE, "r", shape=shape)
        shape = (self.num_rows + 1,)
        self._rows = np.memmap(directory / "rows.bin", OFFSET_TYPE, "r", shape=shape)
        self._order = Permutation(key_of("rows", key.seed, key.epoch), self.num_rows)

    @property
    def padding_share(self) -> float:
        """Share of the positions in the rows that no sample fills."""
        return 1.0 - self.num_tokens / (self.num_rows * self.key.row_tokens)

    @property
    def longest_sample(self) -> int:
        """Tokens of the longest sample, its special tokens included."""
        if self._longest_sample is None:  # built by an earlier version
            starts = range(0, self.num_samples, _READ_SAMPLES)
            blocks = (self._samples[start : start + _READ_SAMPLES] for start in starts)
            self._longest_sample = max(int(sample_tokens(block).max()) for block in blocks)
        return self._longest_sample

    def read(self, positions: Int64Array) -> tuple[SampleArray, Int64Array, Int64Array]:
        """Return the samples of the rows at some positions of the epoch's order.

        Args:
            positions: of rows, from 0 below `num_rows`, [R].

        Returns:
            the sample records, [S]; the index of each sample within the epoch, which is the
            counter of its masks, [S]; and the entry of `positions` whose row holds it, [S].
        """
        rows = self._order(positions)
        first = self._rows[rows].astype(np.int64)
        counts = self._rows[rows + 1].astype(np.int64) - first
        ends = np.cumsum(counts)
        numbers = np.repeat(first - (ends - counts), counts) + np.arange(int(ends[-1]))
        return self._samples[numbers], numbers, np.repeat(np.arange(len(rows)), counts)


def open_epoch_index(corpus: Corpus, key: EpochIndexKey, cache: Path) -> EpochIndex:
    """Open an epoch index in the cache folder, after building it if it is not there.

    The folder's name holds the fingerprint of everything the index depends on, so a stale one is
    never opened. A damaged one is built again. Several processes may build the same index at once:
    the first to finish renames its folder into place, and the others use that one.

    Raises:
        UserError: when the split cannot make such samples or a row is too short or too long.
    """
    _check(corpus, key)
    facts = {
        **vars(key),
        "corpus": corpus.fingerprint,
        "split": corpus.split,
        "weights": {shard.counts.corpus: shard.weight for shard in corpus.shards},
        "v": _VERSION,
    }
    directory = cache / f"{corpus.split}_epoch{key.epoch:04d}_{fingerprint(facts)}"
    if not _is_whole(directory):
        _build(corpus, key, facts, directory)
    return EpochIndex(directory, key)


def _check(corpus: Corpus, key: EpochIndexKey) -> None:
    if not MIN_ROW_TOKENS <= key.row_tokens <= MAX_ROW_TOKENS:
        raise UserError(
            f"Rows of {key.row_tokens} tokens are not possible: "
            f"choose train.row_tokens from {MIN_ROW_TOKENS} to {MAX_ROW_TOKENS}."
        )
    if corpus.num_documents < 2 and key.pairs == "next_sentence":
        raise UserError(
            f"The {corpus.split} split of {corpus.path} has {corpus.num_documents} document(s), "
            "but next-sentence pairs need two: add documents or change corpus.validation_share."
        )


def _is_whole(directory: Path) -> bool:
    """Tell whether an epoch index exists and its tables have the lengths that it states."""
    try:
        facts = json.loads((directory / _FACTS).read_text(encoding="utf-8"))
        expected = {
            "samples.bin": facts["samples"] * SAMPLE.itemsize,
            "rows.bin": (facts["rows"] + 1) * OFFSET_TYPE.itemsize,
        }
        sizes = {name: (directory / name).stat().st_size for name in expected}
        return sizes == expected
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _build(corpus: Corpus, key: EpochIndexKey, facts: dict[str, object], directory: Path) -> None:
    started = time.monotonic()
    directory.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(directory)
    # Unique even in two containers with the same process ids. Not mkdtemp, which ignores the umask.
    building = directory.with_name(f"{directory.name}.{uuid4().hex}{_PARTIAL}")
    building.mkdir()
    try:
        with clear_disk_errors(directory):
            counts = _write_tables(corpus, key, building)
            write_json(building / _FACTS, {**facts, **counts})
            _publish(building, directory)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    index = EpochIndex(directory, key)
    log(
        f"{corpus.split} index of epoch {key.epoch}: {index.num_samples:,} samples in "
        f"{index.num_rows:,} rows of {key.row_tokens} tokens, {index.padding_share:.2%} padding, "
        f"{time.monotonic() - started:.1f} s"
    )


def _remove_leftovers(directory: Path) -> None:
    """Remove what killed builders left of this index; a running one is not a day old."""
    for left in directory.parent.glob(f"{directory.name}.*{_PARTIAL}"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _LEFTOVER_S:
                shutil.rmtree(left, ignore_errors=True)


def _publish(building: Path, directory: Path) -> None:
    """Rename a built index into place, unless another builder was first."""
    try:
        building.rename(directory)
    except OSError:
        if _is_whole(directory):
            return
        # A damaged index: processes that have it open can go on reading it under its new name.
        aside = building.with_name(f"torn.{building.name}")
        directory.rename(aside)
        building.rename(directory)
        shutil.rmtree(aside, ignore_errors=True)


def _write_tables(corpus: Corpus, key: EpochIndexKey, building: Path) -> dict[str, int]:
    num_samples = num_rows = num_tokens = longest = 0
    with (
        (building / "samples.bin").open("wb") as samples_file,
        (building / "rows.bin").open("wb") as rows_file,
    ):
        rows_file.write(np.zeros(1, OFFSET_TYPE).tobytes())
        for samples, offsets in _packed_blocks(corpus, key):
            samples_file.write(samples.tobytes())
            rows_file.write((offsets[1:] + num_samples).astype(OFFSET_TYPE).tobytes())
            num_samples += len(samples)
            num_rows += len(offsets) - 1
            lengths = sample_tokens(samples)
            num_tokens += int(lengths.sum())
            longest = max(longest, int(lengths.max(initial=0)))
    if num_rows == 0:
        raise UserError(
            f"The {corpus.split} split of {corpus.path} makes no samples: give more text, or "
            "raise its weight."
        )
    return {
        "samples": num_samples,
        "rows": num_rows,
        "tokens": num_tokens,
        "longest_sample": longest,
    }


def _packed_blocks(corpus: Corpus, key: EpochIndexKey) -> Iterator[tuple[SampleArray, Int64Array]]:
    """Yield the samples of each block in row order, with the offsets of its rows.

    A block is a shard and the samples carried over from the one before: those of rows that are far
    from full. Without that, every small shard would end in padding.
    """
    carried = np.zeros(0, SAMPLE)
    for index, shard in enumerate(corpus.shards):
        block = np.concatenate([carried, *_shard_samples(corpus, index, key)])
        lengths = sample_tokens(block)
        order, offsets = pack(
            lengths, key.row_tokens, key_of("pack", key.seed, key.epoch, shard.counts.name)
        )
        underfull = np.zeros(len(offsets) - 1, bool)
        if index + 1 < len(corpus.shards) and len(order):
            fills = np.add.reduceat(lengths[order], offsets[:-1])
            underfull = underfull_rows(fills, key.row_tokens)
        counts = np.diff(offsets)
        stays = np.repeat(~underfull, counts)
        carried = block[order[~stays]]
        yield block[order[stays]], np.concatenate([[0], np.cumsum(counts[~underfull])])


def _shard_samples(corpus: Corpus, index: int, key: EpochIndexKey) -> Iterator[SampleArray]:
    """Yield the samples of every repetition of a shard in an epoch."""
    shard = corpus.shards[index]
    # A shard of one document takes its NSP negatives from the next shard.
    alone = shard.counts.documents < 2
    negatives = corpus.shards[(index + 1) % len(corpus.shards)] if alone else shard
    for repetition, documents in sampled_documents(shard, key.seed, key.epoch):
        yield make_samples(
            shard,
            negatives,
            key.row_tokens,
            key.seed,
            key.epoch,
            pairs=key.pairs,
            short_share=key.short_share,
            repetition=repetition,
            documents=documents,
        )
