"""The data of the training benchmarks: the same samples in packed rows and in padded ones.

Packed rows hold several samples, as in our runs; padded ones hold one each, filled up with
padding, as is usual. Masks are the same.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from data_prep.counter_rng import hash64, integers_below, key_of
from data_prep.progress import log
from pretrain.data.batch import IGNORE_INDEX, Batch

_SPECIALS, _CLS, _SEP, MASK_ID = 5, 2, 3, 4  # as in BERT's vocabularies, which begin with [PAD]
_RATE = 0.15
_SHORTEST = 16
_MOST_STEPS = 8  # different ones; longer rounds repeat them


class Sample(NamedTuple):
    """One masked sample of s tokens."""

    input_ids: torch.Tensor  # [s]
    token_types: torch.Tensor  # [s]
    labels: torch.Tensor  # [s], IGNORE_INDEX where a token is not masked
    next_sentence: int  # 0 or 1; IGNORE_INDEX for a single segment


class PaddedBatch(NamedTuple):
    """One sample a row, as the arguments of a model of transformers."""

    inputs: dict[str, torch.Tensor]
    counts: dict[str, int]


@dataclass(frozen=True)
class Data:
    """The micro-batches of each step, and where their text is from."""

    origin: str
    packed: list[list[Batch]]
    padded: list[list[PaddedBatch]]


def make_data(arguments: argparse.Namespace, vocab_size: int, scratch: Path, pin: bool) -> Data:
    """Return the same samples packed and padded.

    Args:
        arguments: sizes of a step and its micro-batches.
        vocab_size: of the model; random ids lie below it.
        scratch: where the sample corpus is prepared.
        pin: whether batches lie in pinned memory.
    """
    row_tokens, rows = arguments.row_tokens, arguments.micro_tokens // arguments.row_tokens
    steps = range(min(arguments.steps, _MOST_STEPS))
    try:
        batches = _sample_batches(scratch, rows, row_tokens)
        origin = "the shipped sample, prepared with 6,000 word pieces"
    except ModuleNotFoundError as error:
        log(f"random ids instead of the sample corpus, because {error.name} is not installed")
        batches = random_batches(rows, row_tokens, vocab_size)
        origin = "random ids; half of the samples fill a row, the others are of any length"
    packed = [[next(batches) for _ in range(arguments.micro_batches)] for _ in steps]
    data = pair_with_padded(origin, packed, rows)
    if pin:
        packed = [[batch.map_tensors(torch.Tensor.pin_memory) for batch in step] for step in packed]
        for batch in (batch for step in data.padded for batch in step):
            batch.inputs.update({k: v.pin_memory() for k, v in batch.inputs.items()})
    return Data(origin, packed, data.padded)


def pair_with_padded(origin: str, packed: list[list[Batch]], rows: int) -> Data:
    """Return packed steps beside the same samples in padded steps of the same sizes."""
    micro_batches, row_tokens = len(packed[0]), packed[0][0].row_tokens
    samples = [s for step in packed for batch in step for s in samples_of(batch)]
    padded = pad_samples(samples, rows, row_tokens)
    whole = len(padded) // micro_batches * micro_batches
    grouped = [padded[first : first + micro_batches] for first in range(0, whole, micro_batches)]
    return Data(origin, packed, grouped)


def add_counts(batches: Sequence[Any]) -> dict[str, int]:
    """Return the sums of the counts of some batches."""
    return {name: sum(batch.counts[name] for batch in batches) for name in batches[0].counts}


def samples_of(batch: Batch) -> list[Sample]:
    """Return the samples of packed rows, in their order."""
    labels = torch.full_like(batch.input_ids, IGNORE_INDEX)
    masked, targets = batch.mlm_targets
    labels[masked] = targets
    next_labels = dict(zip(*(x.tolist() for x in batch.nsp_targets), strict=True))
    ids = batch.sample_ids
    begins = (ids > 0) & (batch.positions == 0)
    owners = begins.cumsum(0)
    owners[ids == 0] = 0
    lengths = torch.bincount(owners)[1:].tolist()
    samples = []
    for first, length in zip(begins.nonzero().flatten().tolist(), lengths, strict=True):
        own = slice(first, first + length)
        tensors = batch.input_ids[own], batch.token_types[own], labels[own]
        samples.append(Sample(*tensors, next_labels.get(first, IGNORE_INDEX)))
    return samples


def pad_samples(samples: Sequence[Sample], rows: int, row_tokens: int) -> list[PaddedBatch]:
    """Return whole batches of one sample a row; samples that do not fill one are left out."""
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


def _sample_batches(scratch: Path, rows: int, row_tokens: int) -> Iterator[Batch]:
    """Prepare the shipped sample, with all packages of preparation, and return its batches."""
    from launch.benchmarks.loader import prepare_sample
    from launch.benchmarks.loader_sides import open_source

    corpus, tokenizer = prepare_sample(scratch)
    source = open_source(corpus, tokenizer, row_tokens, scratch / "plans")

    def batches() -> Iterator[Batch]:
        number = 0
        while True:
            yield from source.step(number, rows, 0, 1, rows)
            number += 1

    return batches()


def random_batches(rows: int, row_tokens: int, vocab_size: int) -> Iterator[Batch]:
    """Yield rows of random ids, cut into samples at random; only their speed is realistic."""
    number = 0
    while True:
        yield _random_batch(key_of("bench", number), rows, row_tokens, vocab_size)
        number += 1


def _random_batch(key: np.uint64, rows: int, row_tokens: int, vocab_size: int) -> Batch:
    size, most = rows * row_tokens, rows * (row_tokens // _SHORTEST)
    starts = _draw_cls_positions(key, rows, row_tokens)
    lengths = np.diff(starts, append=size)
    indices = np.arange(size)
    positions = indices - np.repeat(starts, lengths)
    nth = np.arange(len(starts)) - np.searchsorted(starts, starts // row_tokens * row_tokens)
    ids = _SPECIALS + integers_below(key_of("ids", int(key)), indices, vocab_size - _SPECIALS)
    ids[starts], ids[starts + lengths - 1] = _CLS, _SEP
    drawn = hash64(key_of("masks", int(key)), indices) < np.uint64(int(_RATE * 2**64))
    masked = np.flatnonzero(drawn & (ids >= _SPECIALS))
    labels, ids[masked] = ids[masked], MASK_ID
    return Batch(
        input_ids=torch.from_numpy(ids),
        token_types=torch.from_numpy((positions >= np.repeat(lengths // 2, lengths)).astype("i8")),
        positions=torch.from_numpy(positions),
        sample_ids=torch.from_numpy(np.repeat(nth + 1, lengths).astype("i4")),
        cu_seqlens=_filled(np.append(starts, size), most + 1, size).int(),
        masked_positions=_filled(masked, round(0.2 * size), 0),
        mlm_labels=_filled(labels, round(0.2 * size), IGNORE_INDEX),
        cls_positions=_filled(starts, most, 0),
        nsp_labels=_filled(starts % 2, most, IGNORE_INDEX),
        row_tokens=row_tokens,
        counts={
            "masked": len(masked),
            "samples": len(starts),
            "tokens": size,
            "squares": int((lengths**2).sum()),
        },
    )


def _draw_cls_positions(key: np.uint64, rows: int, row_tokens: int) -> Any:
    """Return where samples begin: half of the rows hold one, the others are cut somewhere."""
    cuts = integers_below(key, np.arange(rows), 2 * (row_tokens - 2 * _SHORTEST)) + _SHORTEST
    begins = np.arange(rows) * row_tokens
    inside = cuts <= row_tokens - _SHORTEST
    return np.sort(np.concatenate([begins, (begins + cuts)[inside]]))


def _filled(values: Any, length: int, fill: int) -> torch.Tensor:
    table = np.full(length, fill)
    table[: len(values)] = values
    return torch.from_numpy(table)
