"""Shards to batches: our loader beside the Hugging Face collators and a plain numpy builder.

ours/uniform, ours/whole_word: read their corpus and pack rows
limit/gather_and_masks: gathers the same segments and draws keyed masks, and assembles nothing
peer/hf_collator: DataCollatorForLanguageModeling, ids in memory, padded to the longest
peer/hf_whole_word: the same with whole_word_mask=True, padded to a row
peer/numpy_pairs: one sample after another with numpy, segments in memory
Every side runs in one process on one thread and makes batches of the same samples; one batch
before them warms up. Figures are real tokens a second, special ones included (limit: without
them); peak: memory of the process, imports of torch and transformers included.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from data_prep.corpus.shards import Corpus
from data_prep.counter_rng import hash64, integers_below, key_of
from data_prep.errors import UserError
from data_prep.tokenizers.folder import LoadedTokenizer, load_tokenizer
from launch.benchmarks.batches import open_source, pad, prepare_sample
from launch.benchmarks.driver import (
    Found,
    count_options,
    measure_in_turns,
    process_side,
    row_of,
    tokens_per_s,
)
from launch.benchmarks.report import Row, compare
from pretrain.data.batch import Batch

Ids = npt.NDArray[np.int64]
LIMIT, UNIFORM, WHOLE_WORD = "limit/gather_and_masks", "ours/uniform", "ours/whole_word"
COLLATOR, WHOLE_WORD_COLLATOR = "peer/hf_collator", "peer/hf_whole_word"
NUMPY_PAIRS = "peer/numpy_pairs"
_AGAINST = {UNIFORM: (COLLATOR, NUMPY_PAIRS, LIMIT), WHOLE_WORD: (WHOLE_WORD_COLLATOR, LIMIT)}
_RATE = 0.15


class Sample(NamedTuple):
    """A sample without masks."""

    ids: Ids
    first: int  # tokens of the first segment, with [CLS] and [SEP]
    label: int  # of next-sentence prediction

    @property
    def segments(self) -> tuple[Ids, Ids]:
        """Segments A and B without special tokens; B may be empty."""
        return self.ids[1 : self.first - 1], self.ids[self.first : -1]


Steps = Sequence[Sequence[Sample]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this benchmark."""
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="default: the shipped sample")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="the corpus's tokenizer")
    numbers = {
        "--row-tokens": (128, "tokens of a row"),
        "--rows": (256, "rows of a batch"),
        "--steps": (20, "batches of a round"),
        "--repeat": (5, "rounds"),
    }
    count_options(parser, numbers)


def run(arguments: argparse.Namespace, scratch: Path) -> list[Row]:
    """Measure, and return the rows."""
    if bool(arguments.corpus) != bool(arguments.tokenizer):
        raise UserError("--corpus and --tokenizer belong together: give both, or neither.")
    if arguments.quick:
        arguments.rows, arguments.steps, arguments.repeat = min(arguments.rows, 16), 2, 1
    corpus, tokenizer = arguments.corpus, arguments.tokenizer
    if not corpus:
        corpus, tokenizer = prepare_sample(scratch)
    job = {"corpus": str(corpus), "tokenizer": str(tokenizer), "plans": str(scratch / "plans")}
    job |= {name: getattr(arguments, name) for name in ("row_tokens", "rows", "steps")}
    sides = {name: process_side(__name__, name, job, scratch) for name in SIDES}
    found = measure_in_turns(sides, arguments.repeat)
    print("{steps} batches of {rows} rows of {row_tokens} tokens".format(**job))
    return rows_of(found)


def rows_of(found: Found) -> list[Row]:
    """Return the rows of all sides, ours last, with their ratios to the others."""
    rows = [row_of(name, "tokens/s", runs, tokens_per_s) for name, runs in found.items()]
    return compare(rows, _AGAINST)


def _measure(name: str, job: Mapping[str, Any], work: Path) -> dict[str, Any]:
    """Make the batches of a side, and return their tokens and seconds."""
    torch.set_num_threads(1)
    batches = batches_of(name, job)
    next(batches)
    started = time.perf_counter()
    tokens = sum(next(batches) for _ in range(job["steps"]))
    return {"tokens": tokens, "seconds": time.perf_counter() - started}


def batches_of(name: str, job: Mapping[str, Any]) -> Iterator[int]:
    """Return an iterator that makes a batch and yields the number of its real tokens."""
    corpus, folder, rows = Path(job["corpus"]), Path(job["tokenizer"]), job["rows"]
    mask = {"policy": "whole_word"} if name == WHOLE_WORD else {}
    source = open_source(corpus, folder, job["row_tokens"], Path(job["plans"]), **mask)
    steps = range(job["steps"] + 1)
    batches = (batch for step in steps for batch in source.step(step, rows, 0, 1, rows))
    if name in _AGAINST:
        return (batch.counts["tokens"] for batch in batches)
    samples = [samples_of(batch) for batch in batches]
    if name == LIMIT:
        return _gather_and_mask(Corpus.open(corpus), samples)
    tokenizer = load_tokenizer(folder)
    if name == NUMPY_PAIRS:
        return _numpy_pairs(tokenizer, samples, job["row_tokens"])
    return _collate(tokenizer, samples, job["row_tokens"] if name == WHOLE_WORD_COLLATOR else None)


def samples_of(batch: Batch) -> list[Sample]:
    """Return the samples of a batch as they were before masking."""
    ids = batch.input_ids.clone()
    masked, labels = batch.mlm_targets
    ids[masked] = labels
    table = {name: t.numpy() for name, t in pad(replace(batch, input_ids=ids)).items()}
    lengths = table["attention_mask"].sum(1)
    first_segments = lengths - table["token_type_ids"].sum(1)
    columns = (table["input_ids"], lengths, first_segments, table["next_sentence_label"].tolist())
    return [
        Sample(ids[:n], int(first), label) for ids, n, first, label in zip(*columns, strict=True)
    ]


def _gather_and_mask(corpus: Corpus, steps: Steps) -> Iterator[int]:
    """Gather as many segments of the same lengths, and draw a keyed number for each token."""
    key, threshold = key_of("limit"), np.uint64(int(_RATE * 2**64))
    stream = corpus.shards[0].tokens
    segments = []
    for step in steps:
        lengths = np.array([len(part) for sample in step for part in sample.segments], np.int64)
        starts = integers_below(key, np.arange(len(lengths)), len(stream) - lengths)
        segments.append((starts, lengths))
    for starts, lengths in segments:
        ends = np.cumsum(lengths)
        indices = np.repeat(starts - (ends - lengths), lengths) + np.arange(int(ends[-1]))
        tokens = stream[indices].astype(np.int64)
        masked = np.flatnonzero(hash64(key, indices) < threshold)
        tokens[masked] = 0
        yield len(tokens)


def _collate(tokenizer: LoadedTokenizer, steps: Steps, whole_word_row: int | None) -> Iterator[int]:
    """Mask and pad by the collator of transformers; whole words padded to a row."""
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling

    options: dict[str, Any] = {"return_tensors": "pt"}
    if whole_word_row:
        options = {"whole_word_mask": True, "mask_replace_prob": 1.0, "random_replace_prob": 0.0}
    plain = AutoTokenizer.from_pretrained(tokenizer.path)
    collate = DataCollatorForLanguageModeling(plain, seed=0, **options)
    made = [[_features(tokenizer, sample) for sample in step] for step in steps]
    if whole_word_row:
        continues = _continuations(tokenizer)
        for features in (features for step in made for features in step):
            add_offsets(features, continues, tokenizer.pad_id, whole_word_row)
    for step, prepared in zip(steps, made, strict=True):
        collate(prepared)
        yield sum(len(sample.ids) for sample in step)


def _features(tokenizer: LoadedTokenizer, sample: Sample) -> dict[str, Any]:
    """Return a sample as a Hugging Face tokenizer would have left it in a data set."""
    size = len(sample.ids)
    special = np.isin(sample.ids, [tokenizer.cls_id, tokenizer.sep_id])
    return {
        "input_ids": sample.ids.tolist(),
        "token_type_ids": [0] * sample.first + [1] * (size - sample.first),
        "attention_mask": [1] * size,
        "special_tokens_mask": special.astype(int).tolist(),
        "next_sentence_label": sample.label,
    }


def add_offsets(
    features: dict[str, Any], continues: npt.NDArray[np.bool_], pad_id: int, row_tokens: int
) -> None:
    """Add offsets in which a word's tokens touch, and pad: the collator cannot pad offsets."""
    ids = np.array(features["input_ids"])
    # Every token is one character wide, and a space stands before each that begins a word.
    starts = np.cumsum(np.where(continues[ids], 1, 2))
    offsets = [*zip(starts.tolist(), (starts + 1).tolist(), strict=True)]
    fills = {"input_ids": pad_id, "token_type_ids": 0, "attention_mask": 0,
             "special_tokens_mask": 1, "offset_mapping": (0, 0)}  # fmt: skip
    features["offset_mapping"] = offsets
    for name, fill in fills.items():
        features[name] += [fill] * (row_tokens - len(ids))


def _continuations(tokenizer: LoadedTokenizer) -> npt.NDArray[np.bool_]:
    """Return for every id whether its token continues a word, [vocabulary]."""
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    sentencepiece = any(token.startswith("▁") for token in vocabulary)
    continues = np.zeros(tokenizer.vocab_size, np.bool_)
    for token, index in vocabulary.items():
        continues[index] = not token.startswith("▁") if sentencepiece else token.startswith("##")
    return continues


def _numpy_pairs(tokenizer: LoadedTokenizer, steps: Steps, row_tokens: int) -> Iterator[int]:
    """Build a batch the plain way: a loop over samples, numpy within each."""
    generator = np.random.default_rng(0)
    cls, sep = [tokenizer.cls_id], [tokenizer.sep_id]
    segments = [[sample.segments for sample in step] for step in steps]
    for step in segments:
        ids = np.full((len(step), row_tokens), tokenizer.pad_id, np.int64)
        types, labels = np.zeros_like(ids), np.full_like(ids, -100)
        tokens = 0
        for row, (a, b) in enumerate(step):
            sample = np.concatenate([cls, a, sep, b, sep] if len(b) else [cls, a, sep])
            ordinary = np.ones(len(sample), np.bool_)
            ordinary[[0, len(a) + 1, len(sample) - 1]] = False
            chosen = np.flatnonzero(ordinary & (generator.random(len(sample)) < _RATE))
            labels[row, chosen] = sample[chosen]
            show = generator.random(len(chosen))
            sample[chosen[show < 0.8]] = tokenizer.mask_id
            swapped = chosen[(show >= 0.8) & (show < 0.9)]
            sample[swapped] = generator.choice(tokenizer.ordinary_ids, len(swapped))
            ids[row, : len(sample)] = sample
            types[row, len(a) + 2 : len(sample)] = 1
            tokens += len(sample)
        _batch = [torch.from_numpy(array) for array in (ids, types, labels)]
        yield tokens


SIDES: Mapping[str, Callable[[Mapping[str, Any], Path], dict[str, Any]]] = {
    name: partial(_measure, name)
    for name in (LIMIT, UNIFORM, COLLATOR, NUMPY_PAIRS, WHOLE_WORD, WHOLE_WORD_COLLATOR)
}
