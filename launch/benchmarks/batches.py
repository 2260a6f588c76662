"""Batches of the shipped sample: packed rows, and the same samples in padded ones.

Packed rows hold several samples, as in our runs; padded ones hold one each, filled up with
padding, as is usual. Masks are the same. Shapes: S samples, T tokens of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from data_prep.config.schema import CorpusRecipe
from data_prep.corpus.shards import Corpus
from data_prep.pipeline.build import build_corpus
from data_prep.tokenizers.folder import load_tokenizer
from pretrain.config.run import MaskOptions
from pretrain.config.train import TrainOptions
from pretrain.data.batch import IGNORE_INDEX, Batch
from pretrain.data.batch_source import BatchSource


class PaddedBatch(NamedTuple):
    """One sample a row, as the arguments of a model of transformers."""

    inputs: dict[str, torch.Tensor]
    counts: dict[str, int]


@dataclass(frozen=True)
class Data:
    """The micro-batches of each step."""

    packed: Sequence[Sequence[Batch]]
    padded: Sequence[Sequence[PaddedBatch]]


def prepare_sample(scratch: Path) -> tuple[Path, Path]:
    """Prepare the shipped sample in a scratch folder; return its corpus and tokenizer folders."""
    tree = {
        "input": {"path": "sample", "documents": "file"},
        "tokenizer": {"path": scratch / "tokenizer", "vocab_size": 6000, "alphabet": 200},
        "corpus": {"path": scratch / "corpus", "validation_share": 0.05},
        "workers": 1,
    }
    recipe = CorpusRecipe.model_validate(tree)
    build_corpus(recipe)
    return recipe.corpus.path, recipe.tokenizer.path


def open_source(
    corpus: Path, tokenizer: Path, row_tokens: int, plans: Path, **mask: Any
) -> BatchSource:
    """Return the batch source of a corpus, as a run opens it."""
    return BatchSource(
        Corpus.open(corpus),
        load_tokenizer(tokenizer),
        MaskOptions.model_validate(mask),
        seed=0,
        row_tokens=row_tokens,
        cache=plans,
    )


def sample_data(scratch: Path, train: TrainOptions, steps: int, pin: bool) -> Data:
    """Return steps of the shipped sample, in pinned memory if wanted for a GPU."""
    source = open_source(*prepare_sample(scratch), train.row_tokens, scratch / "plans")
    rows = train.micro_rows
    data = with_padded([source.step(n, train.batch_rows, 0, 1, rows) for n in range(steps)], rows)
    if not pin:
        return data
    for batch in (batch for step in data.padded for batch in step):
        batch.inputs.update({k: v.pin_memory() for k, v in batch.inputs.items()})
    pinned = [[b.map_tensors(torch.Tensor.pin_memory) for b in step] for step in data.packed]
    return Data(pinned, data.padded)


def with_padded(packed: Sequence[Sequence[Batch]], rows: int) -> Data:
    """Return packed steps beside the same samples in padded steps of the same sizes."""
    tables = [pad(batch) for step in packed for batch in step]
    joined = {name: torch.cat([table[name] for table in tables]) for name in tables[0]}
    samples = len(joined["labels"])
    batches = [_padded_batch(joined, first, rows) for first in range(0, samples - rows + 1, rows)]
    size = len(packed[0])
    whole = len(batches) // size * size
    return Data(packed, [batches[first : first + size] for first in range(0, whole, size)])


def pad(batch: Batch) -> dict[str, torch.Tensor]:
    """Return the samples of packed rows, one a row: [S, T], and NSP labels [S]."""
    real = batch.sample_ids > 0
    begins = real & (batch.positions == 0)
    where = begins.cumsum(0)[real] - 1, batch.positions[real]
    labels, next_labels = (torch.full_like(batch.input_ids, IGNORE_INDEX) for _ in range(2))
    labels[batch.mlm_targets[0]], next_labels[batch.nsp_targets[0]] = (
        batch.mlm_targets[1],
        batch.nsp_targets[1],
    )

    def table(values: torch.Tensor, fill: int = 0) -> torch.Tensor:
        filled = values.new_full((int(begins.sum()), batch.row_tokens), fill)
        filled[where] = values[real]
        return filled

    return {
        "input_ids": table(batch.input_ids),
        "token_type_ids": table(batch.token_types),
        "attention_mask": table(torch.ones_like(batch.input_ids)),
        "labels": table(labels, IGNORE_INDEX),
        "next_sentence_label": next_labels[begins],
    }


def add_counts(batches: Sequence[Any]) -> dict[str, int]:
    """Return the sums of the counts of some batches."""
    return {name: sum(batch.counts[name] for batch in batches) for name in batches[0].counts}


def _padded_batch(tables: dict[str, torch.Tensor], first: int, rows: int) -> PaddedBatch:
    inputs = {name: table[first : first + rows] for name, table in tables.items()}
    lengths = inputs["attention_mask"].sum(1)
    counts = {
        "tokens": int(lengths.sum()),
        "squares": int((lengths**2).sum()),
        "masked": int((inputs["labels"] != IGNORE_INDEX).sum()),
        "samples": rows,
    }
    return PaddedBatch(inputs, counts)
