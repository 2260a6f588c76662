"""The sides of the loader benchmark; each is called in a fresh process.

They return their real `tokens`, special ones included (`limit/...`: without them), and the
`seconds` that making the batches took. One batch before them warms up.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Corpus
from data_prep.counter_rng import hash64, integers_below, key_of
from data_prep.tokenizers.folder import LoadedTokenizer, load_tokenizer
from pretrain.config.run import MaskOptions

if TYPE_CHECKING:
    from pretrain.data.batch import Batch
    from pretrain.data.batch_source import BatchSource

Job = Mapping[str, Any]
Ids = npt.NDArray[np.int64]
# Segments A and B of a sample without special tokens, and its label.
Segments = tuple[Ids, Ids, int]
Steps = Sequence[Sequence[Segments]]

LIMIT, UNIFORM, WHOLE_WORD = "limit/gather_and_masks", "ours/uniform", "ours/whole_word"
COLLATOR, WHOLE_WORD_COLLATOR = "peer/hf_collator", "peer/hf_whole_word"
NUMPY_PAIRS = "peer/numpy_pairs"
_POLICIES: dict[str, dict[str, Any]] = {UNIFORM: {}, WHOLE_WORD: {"policy": "whole_word"}}
_RATE = 0.15


def _measure(name: str, job: Job, work: Path) -> dict[str, Any]:
    """Make the batches of a side, and return their tokens and seconds."""
    import torch

    torch.set_num_threads(1)
    batches = batches_of(name, job)
    next(batches)
    tokens = 0
    started = time.perf_counter()
    for _ in range(job["steps"]):
        tokens += next(batches)
    return {"tokens": tokens, "seconds": time.perf_counter() - started}


def batches_of(name: str, job: Job) -> Iterator[int]:
    """Return an iterator that makes a batch and yields the number of its real tokens."""
    corpus, folder = Path(job["corpus"]), Path(job["tokenizer"])
    policy = _POLICIES.get(name, {})
    source = open_source(corpus, folder, job["row_tokens"], Path(job["plans"]), **policy)
    batches = micro_batches(source, job)
    if name in _POLICIES:
        return (batch.counts["tokens"] for batch in batches)
    steps = [segments_of(batch) for batch in batches]
    if name == LIMIT:
        return _gather_and_mask(Corpus.open(corpus), steps)
    make = _numpy_pairs if name == NUMPY_PAIRS else _collate
    return make(load_tokenizer(folder), steps, job["row_tokens"], name == WHOLE_WORD_COLLATOR)


def open_source(
    corpus: Path, tokenizer: Path, row_tokens: int, plans: Path, **mask: Any
) -> "BatchSource":
    """Return the batch source of a corpus, as a run opens it."""
    from pretrain.data.batch_source import BatchSource

    return BatchSource(
        Corpus.open(corpus),
        load_tokenizer(tokenizer),
        MaskOptions.model_validate(mask),
        seed=0,
        row_tokens=row_tokens,
        cache=plans,
    )


def micro_batches(source: "BatchSource", job: Job) -> "Iterator[Batch]":
    """Yield the one micro-batch that a single rank takes in each step, warming up included."""
    for step in range(job["steps"] + 1):
        yield from source.step(step, job["rows"], 0, 1, job["rows"])


def segments_of(batch: "Batch") -> list[Segments]:
    """Return the segments of a batch's samples as they were before masking."""
    from launch.benchmarks.batches import samples_of

    ids = batch.input_ids.clone()
    masked, labels = batch.mlm_targets
    ids[masked] = labels
    found = []
    for sample in samples_of(replace(batch, input_ids=ids)):
        own, in_a = sample.input_ids.numpy(), sample.token_types.numpy() == 0
        found.append((own[in_a][1:-1], own[~in_a][:-1], sample.next_sentence))
    return found


def _gather_and_mask(corpus: Corpus, steps: Steps) -> Iterator[int]:
    """Gather as many segments of the same lengths, and draw a keyed number for each token."""
    key = key_of("limit")
    threshold = np.uint64(int(_RATE * 2**64))
    stream = corpus.shards[0].tokens
    segments = []
    for step in steps:
        lengths = np.array([len(part) for sample in step for part in sample[:2]], np.int64)
        starts = integers_below(key, np.arange(len(lengths)), len(stream) - lengths)
        segments.append((starts, lengths))
    for starts, lengths in segments:
        ends = np.cumsum(lengths)
        indices = np.repeat(starts - (ends - lengths), lengths) + np.arange(int(ends[-1]))
        tokens = stream[indices].astype(np.int64)
        masked = np.flatnonzero(hash64(key, indices) < threshold)
        tokens[masked] = 0
        yield len(tokens)


def _collate(
    tokenizer: LoadedTokenizer, steps: Steps, row_tokens: int, whole_word: bool
) -> Iterator[int]:
    """Mask and pad by the collator of transformers, from samples in memory."""
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling

    options: dict[str, Any] = {"return_tensors": "pt"}
    if whole_word:
        options = {"whole_word_mask": True, "mask_replace_prob": 1.0, "random_replace_prob": 0.0}
    plain = AutoTokenizer.from_pretrained(tokenizer.path)
    collate = DataCollatorForLanguageModeling(plain, seed=0, **options)
    made = [[_features(tokenizer, sample) for sample in step] for step in steps]
    counts = [sum(len(features["input_ids"]) for features in step) for step in made]
    if whole_word:
        continues = _continuations(tokenizer)
        for features in (features for step in made for features in step):
            add_offsets(features, continues, tokenizer.pad_id, row_tokens)
    for step, tokens in zip(made, counts, strict=True):
        collate(step)
        yield tokens


def _features(tokenizer: LoadedTokenizer, sample: Segments) -> dict[str, Any]:
    """Return a sample as a Hugging Face tokenizer would have left it in a data set."""
    a, b = sample[0].tolist(), sample[1].tolist()
    ids = [tokenizer.cls_id, *a, tokenizer.sep_id, *b]
    special = [1, *[0] * len(a), 1, *[0] * len(b)]
    if b:
        ids, special = [*ids, tokenizer.sep_id], [*special, 1]
    return {
        "input_ids": ids,
        "token_type_ids": [0] * (len(a) + 2) + [1] * (len(ids) - len(a) - 2),
        "attention_mask": [1] * len(ids),
        "special_tokens_mask": special,
        "next_sentence_label": sample[2],
    }


def add_offsets(
    features: dict[str, Any], continues: npt.NDArray[np.bool_], pad_id: int, row_tokens: int
) -> None:
    """Add offsets in which a word's tokens touch, and pad: the collator cannot pad offsets."""
    ids = np.array(features["input_ids"])
    # Every token is one character wide, and a space stands before each that begins a word.
    starts = np.cumsum(np.where(continues[ids], 1, 2))
    blank = row_tokens - len(ids)
    offsets = [*zip(starts.tolist(), (starts + 1).tolist(), strict=True)]
    features["offset_mapping"] = offsets + [(0, 0)] * blank
    fills = {
        "input_ids": pad_id,
        "token_type_ids": 0,
        "attention_mask": 0,
        "special_tokens_mask": 1,
    }
    for name, fill in fills.items():
        features[name] += [fill] * blank


def _continuations(tokenizer: LoadedTokenizer) -> npt.NDArray[np.bool_]:
    """Return for every id whether its token continues a word, [vocabulary]."""
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    sentencepiece = any(token.startswith("▁") for token in vocabulary)
    continues = np.zeros(tokenizer.vocab_size, np.bool_)
    for token, index in vocabulary.items():
        continues[index] = not token.startswith("▁") if sentencepiece else token.startswith("##")
    return continues


def _numpy_pairs(
    tokenizer: LoadedTokenizer, steps: Steps, row_tokens: int, _: bool
) -> Iterator[int]:
    """Build a batch the plain way: a loop over samples, numpy within each."""
    import torch

    generator = np.random.default_rng(0)
    cls, sep = [tokenizer.cls_id], [tokenizer.sep_id]
    for step in steps:
        ids = np.full((len(step), row_tokens), tokenizer.pad_id, np.int64)
        types = np.zeros_like(ids)
        labels = np.full_like(ids, -100)
        tokens = 0
        for row, (a, b, _label) in enumerate(step):
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


SIDES: Mapping[str, Callable[[Job, Path], dict[str, Any]]] = {
    name: partial(_measure, name)
    for name in (LIMIT, UNIFORM, COLLATOR, NUMPY_PAIRS, WHOLE_WORD, WHOLE_WORD_COLLATOR)
}
