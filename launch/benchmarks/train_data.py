"""The text of the training benchmark: packed rows for us, padded ones for the others.

Both hold the same samples with the same masks. Ours come in rows that several samples share; the
others get each sample in a row of its own, filled up with padding, as is usual.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_prep.counter_rng import hash64, integers_below, key_of
from data_prep.progress import log
from pretrain.data.batch import IGNORE_INDEX, Batch

Counts = dict[str, int]
Padded = dict[str, torch.Tensor]
_SPECIALS, _CLS, _SEP, _MASK = 5, 2, 3, 4  # as in BERT's vocabularies, which begin with [PAD]
_RATE = 0.15
_SHORTEST = 16


@dataclass(frozen=True)
class Sample:
    """One sample, masked."""

    input_ids: torch.Tensor  # [s]
    token_types: torch.Tensor  # [s]
    labels: torch.Tensor  # [s], IGNORE_INDEX where nothing is asked
    next_sentence: int  # 0 or 1; IGNORE_INDEX for a single segment


@dataclass(frozen=True)
class PaddedBatch:
    """One sample a row, as a model of transformers takes them."""

    inputs: Padded
    counts: Counts


@dataclass(frozen=True)
class Data:
    """What a benchmark trains on, step by step."""

    origin: str
    packed: list[list[Batch]]
    padded: list[list[PaddedBatch]]


def make_data(
    *,
    steps: int,
    micro_batches: int,
    rows: int,
    row_tokens: int,
    vocab_size: int,
    scratch: Path,
    pin: bool,
) -> Data:
    """Return the same samples packed and padded.

    Args:
        steps: how many there are.
        micro_batches: of a step.
        rows: of a micro-batch.
        row_tokens: of a row.
        vocab_size: of the model; ids lie below it.
        scratch: where the sample corpus is prepared.
        pin: whether batches lie where a GPU reads them by itself.
    """
    try:
        source = _read_sample(scratch, row_tokens)
        origin = "the shipped sample, prepared with 6,000 word pieces"
    except ModuleNotFoundError as error:
        log(f"random ids instead of the sample corpus, for want of {error.name}")
        source = None
        origin = "random ids; half of the samples fill a row, the others are of any length"
    batches = (
        _random_batches(rows, row_tokens, vocab_size) if source is None
        else _sample_batches(source, rows)
    )  # fmt: skip
    packed = [[next(batches) for _ in range(micro_batches)] for _ in range(steps)]
    samples = [s for step in packed for batch in step for s in samples_of(batch)]
    padded = pad_samples(samples, rows, row_tokens)
    whole = len(padded) // micro_batches * micro_batches
    grouped = [padded[first : first + micro_batches] for first in range(0, whole, micro_batches)]
    if pin:
        packed = [[batch.map_tensors(torch.Tensor.pin_memory) for batch in step] for step in packed]
        for batch in (batch for step in grouped for batch in step):
            batch.inputs.update({k: v.pin_memory() for k, v in batch.inputs.items()})
    return Data(origin, packed, grouped)


def samples_of(batch: Batch) -> list[Sample]:
    """Return the samples of packed rows, in their order."""
    labels = torch.full_like(batch.input_ids, IGNORE_INDEX)
    masked, targets = batch.mlm_targets
    labels[masked] = targets
    nexts = dict(zip(*(x.tolist() for x in batch.nsp_targets), strict=True))
    ids = batch.sample_ids
    begins = (ids > 0) & (batch.positions == 0)
    owners = begins.cumsum(0)
    owners[ids == 0] = 0
    lengths = torch.bincount(owners)[1:].tolist()
    return [
        Sample(
            batch.input_ids[first : first + length],
            batch.token_types[first : first + length],
            labels[first : first + length],
            nexts.get(first, IGNORE_INDEX),
        )
        for first, length in zip(begins.nonzero().flatten().tolist(), lengths, strict=True)
    ]


def pad_samples(samples: Sequence[Sample], rows: int, row_tokens: int) -> list[PaddedBatch]:
    """Return whole batches of one sample a row; samples that fill none up are left out."""
    whole = len(samples) // rows * rows
    return [_pad(samples[first : first + rows], row_tokens) for first in range(0, whole, rows)]


def _pad(samples: Sequence[Sample], row_tokens: int) -> PaddedBatch:
    def table(name: str, fill: int) -> torch.Tensor:
        filled = torch.full((len(samples), row_tokens), fill)
        for row, sample in zip(filled, samples, strict=True):
            values = getattr(sample, name)
            row[: len(values)] = values
        return filled

    lengths = torch.tensor([len(sample.input_ids) for sample in samples])
    labels = table("labels", IGNORE_INDEX)
    inputs = {
        "input_ids": table("input_ids", 0),
        "token_type_ids": table("token_types", 0),
        "attention_mask": (torch.arange(row_tokens) < lengths[:, None]).long(),
        "labels": labels,
        "next_sentence_label": torch.tensor([sample.next_sentence for sample in samples]),
    }
    counts = {
        "tokens": int(lengths.sum()),
        "squares": int((lengths**2).sum()),
        "masked": int((labels != IGNORE_INDEX).sum()),
        "samples": len(samples),
    }
    return PaddedBatch(inputs, counts)


def _read_sample(scratch: Path, row_tokens: int) -> Any:
    """Prepare the shipped sample; this needs all that preparation needs."""
    from data_prep.corpus.shards import Corpus
    from data_prep.tokenizers.folder import load_tokenizer
    from launch.benchmarks.loader import prepare_sample
    from pretrain.config.run import MaskOptions
    from pretrain.data.batch_source import BatchSource

    corpus, tokenizer = prepare_sample(scratch)
    return BatchSource(
        Corpus.open(corpus),
        load_tokenizer(tokenizer),
        MaskOptions(),
        seed=0,
        row_tokens=row_tokens,
        cache=scratch / "plans",
    )


def _sample_batches(source: Any, rows: int) -> Iterator[Batch]:
    number = 0
    while True:
        yield from source.step(number, rows, 0, 1, rows)
        number += 1


def _random_batches(rows: int, row_tokens: int, vocab_size: int) -> Iterator[Batch]:
    """Yield rows of random ids, cut into samples at random; nothing but their speed is real."""
    number = 0
    while True:
        yield _random_batch(key_of("bench", number), rows, row_tokens, vocab_size)
        number += 1


def _random_batch(key: np.uint64, rows: int, row_tokens: int, vocab_size: int) -> Batch:
    size = rows * row_tokens
    cls_positions = _draw_firsts(key, rows, row_tokens)
    lengths = np.diff(cls_positions, append=size)
    places = np.arange(size)
    positions = places - np.repeat(cls_positions, lengths)
    nth = np.arange(len(cls_positions)) - np.searchsorted(
        cls_positions, cls_positions // row_tokens * row_tokens
    )
    ids = _SPECIALS + integers_below(key_of("ids", int(key)), places, vocab_size - _SPECIALS)
    ids[cls_positions], ids[cls_positions + lengths - 1] = _CLS, _SEP
    wanted = hash64(key_of("masks", int(key)), places) < np.uint64(int(_RATE * 2**64))
    masked = np.flatnonzero(wanted & (ids >= _SPECIALS))
    labels, ids[masked] = ids[masked], _MASK
    return Batch(
        input_ids=torch.from_numpy(ids),
        token_types=torch.from_numpy((positions >= np.repeat(lengths // 2, lengths)).astype("i8")),
        positions=torch.from_numpy(positions),
        sample_ids=torch.from_numpy(np.repeat(nth + 1, lengths).astype("i4")),
        cu_seqlens=_filled(
            np.append(cls_positions, size), rows * (row_tokens // _SHORTEST) + 1, size
        ).int(),
        masked_positions=_filled(masked, round(0.2 * size), 0),
        mlm_labels=_filled(labels, round(0.2 * size), IGNORE_INDEX),
        cls_positions=_filled(cls_positions, rows * (row_tokens // _SHORTEST), 0),
        nsp_labels=_filled(cls_positions % 2, rows * (row_tokens // _SHORTEST), IGNORE_INDEX),
        row_tokens=row_tokens,
        counts={
            "masked": len(masked),
            "samples": len(cls_positions),
            "tokens": size,
            "squares": int((lengths**2).sum()),
        },
    )


def _draw_firsts(key: np.uint64, rows: int, row_tokens: int) -> Any:
    """Return where samples begin: half of the rows hold one, the others are cut somewhere."""
    cuts = integers_below(key, np.arange(rows), 2 * (row_tokens - 2 * _SHORTEST)) + _SHORTEST
    begins = np.arange(rows) * row_tokens
    inside = cuts <= row_tokens - _SHORTEST
    return np.sort(np.concatenate([begins, (begins + cuts)[inside]]))


def _filled(values: Any, length: int, fill: int) -> torch.Tensor:
    table = np.full(length, fill)
    table[: len(values)] = values
    return torch.from_numpy(table)
