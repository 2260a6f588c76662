"""The sides of the loader benchmark, each run as a process of its own.

    python -m launch.benchmarks.loader_sides SIDE FOLDER

reads FOLDER/job.json and leaves FOLDER/result.json: real tokens, special ones included, and the
seconds that making the batches took. One batch before them warms up.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import Corpus
from data_prep.counter_rng import hash64, integers_below, key_of
from data_prep.tokenizers.folder import LoadedTokenizer, load_tokenizer
from launch.benchmarks.processes import write_result
from pretrain.config.run import MaskOptions

if TYPE_CHECKING:
    from pretrain.data.batch import Batch
    from pretrain.data.batch_source import BatchSource

Job = Mapping[str, Any]
Ids = npt.NDArray[np.int64]
# A and B of a sample without special tokens, and its label.
Sample = tuple[Ids, Ids, int]

LIMIT, UNIFORM, WHOLE_WORD = "limit/gather_and_masks", "ours/uniform", "ours/whole_word"
COLLATOR, WHOLE_WORD_COLLATOR = "peer/hf_collator", "peer/hf_whole_word"
NUMPY_PAIRS = "peer/numpy_pairs"
VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}
_POLICIES = {UNIFORM: {}, WHOLE_WORD: {"policy": "whole_word"}}
_RATE = 0.15


def main() -> None:
    """Run the side that the command line names."""
    import torch

    torch.set_num_threads(1)
    name, work = sys.argv[1], Path(sys.argv[2])
    job = json.loads((work / "job.json").read_text(encoding="utf-8"))
    batches = _batches_of(name, job)
    next(batches)
    tokens = 0
    started = time.perf_counter()
    for _ in range(job["steps"]):
        tokens += next(batches)
    write_result(work, tokens=tokens, seconds=time.perf_counter() - started)


def can_mask(name: str) -> bool:
    """Tell whether this version of Stillhouse has the masking policy of one of our sides."""
    return set(_POLICIES[name]) <= set(MaskOptions.model_fields)


def _batches_of(name: str, job: Job) -> Iterator[int]:
    """Return an iterator that makes a batch and gives the number of its real tokens."""
    tokenizer = load_tokenizer(Path(job["tokenizer"]))
    corpus = Corpus.open(Path(job["corpus"]))
    if name in _POLICIES:
        return _our_batches(_source(name, job, corpus, tokenizer), job)
    source = _source(UNIFORM, job, corpus, tokenizer)
    steps = [_samples_of(batch) for batch in _micro_batches(source, job, 0, job["steps"] + 1)]
    if name == LIMIT:
        return _limit_batches(corpus, steps)
    make = {
        COLLATOR: _collated,
        WHOLE_WORD_COLLATOR: _collated_whole_words,
        NUMPY_PAIRS: _numpy_pairs,
    }[name]
    return make(tokenizer, steps, job["row_tokens"])


def _source(name: str, job: Job, corpus: Corpus, tokenizer: LoadedTokenizer) -> "BatchSource":
    from pretrain.data.batch_source import BatchSource

    return BatchSource(
        corpus,
        tokenizer,
        MaskOptions.model_validate(_POLICIES[name]),
        seed=0,
        row_tokens=job["row_tokens"],
        cache=Path(job["plans"]),
    )


def _micro_batches(source: "BatchSource", job: Job, first: int, stop: int) -> "Iterator[Batch]":
    """Yield the one micro-batch that a single rank takes in each of some steps."""
    for step in range(first, stop):
        yield from source.step(step, job["rows"], 0, 1, job["rows"])


def _our_batches(source: "BatchSource", job: Job) -> Iterator[int]:
    for batch in _micro_batches(source, job, 0, job["steps"] + 1):
        yield batch.counts["tokens"]


def _samples_of(batch: "Batch") -> list[Sample]:
    """Return the samples of a batch as they were before masking."""
    ids = batch.input_ids.numpy().copy()
    masked, labels = (x.numpy() for x in batch.mlm_targets)
    ids[masked] = labels
    types, within = batch.token_types.numpy(), batch.sample_ids.numpy()
    samples = []
    cls_positions, answers = (x.tolist() for x in batch.nsp_targets)
    for first, label in zip(cls_positions, answers, strict=True):
        row_end = (first // batch.row_tokens + 1) * batch.row_tokens
        own = slice(first, first + int((within[first:row_end] == within[first]).sum()))
        in_a = types[own] == 0
        samples.append((ids[own][in_a][1:-1], ids[own][~in_a][:-1], label))
    return samples


def _limit_batches(corpus: Corpus, steps: Sequence[Sequence[Sample]]) -> Iterator[int]:
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
        places = np.repeat(starts - (ends - lengths), lengths) + np.arange(int(ends[-1]))
        tokens = stream[places].astype(np.int64)
        masked = np.flatnonzero(hash64(key, places) < threshold)
        tokens[masked] = 0
        yield len(tokens)


def _collated(
    tokenizer: LoadedTokenizer, steps: Sequence[Sequence[Sample]], row_tokens: int
) -> Iterator[int]:
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling

    plain = AutoTokenizer.from_pretrained(tokenizer.path)
    collate = DataCollatorForLanguageModeling(plain, return_tensors="pt", seed=0)
    made = [[_features(tokenizer, sample) for sample in step] for step in steps]
    counts = [sum(len(features["input_ids"]) for features in step) for step in made]
    for step, tokens in zip(made, counts, strict=True):
        collate(step)
        yield tokens


def _collated_whole_words(
    tokenizer: LoadedTokenizer, steps: Sequence[Sequence[Sample]], row_tokens: int
) -> Iterator[int]:
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling

    plain = AutoTokenizer.from_pretrained(tokenizer.path)
    collate = DataCollatorForLanguageModeling(
        plain, whole_word_mask=True, mask_replace_prob=1.0, random_replace_prob=0.0, seed=0
    )
    continues = _continuations(tokenizer)
    made = [[_features(tokenizer, sample) for sample in step] for step in steps]
    counts = [sum(len(features["input_ids"]) for features in step) for step in made]
    for step in made:
        for features in step:
            _add_offsets(features, continues, tokenizer.pad_id, row_tokens)
    for step, tokens in zip(made, counts, strict=True):
        collate(step)
        yield tokens


def _features(tokenizer: LoadedTokenizer, sample: Sample) -> dict[str, Any]:
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


def _add_offsets(
    features: dict[str, Any], continues: npt.NDArray[np.bool_], pad_id: int, row_tokens: int
) -> None:
    """Add offsets in which a word's tokens touch, and pad: the collator cannot pad offsets."""
    ids = np.array(features["input_ids"])
    # Every token is one character wide, and a space stands before each that begins a word.
    starts = np.cumsum(np.where(continues[ids], 1, 2))
    blank = row_tokens - len(ids)
    features["offset_mapping"] = [*zip(starts.tolist(), (starts + 1).tolist(), strict=True)]
    features["offset_mapping"] += [(0, 0)] * blank
    features["input_ids"] += [pad_id] * blank
    features["token_type_ids"] += [0] * blank
    features["attention_mask"] += [0] * blank
    features["special_tokens_mask"] += [1] * blank


def _continuations(tokenizer: LoadedTokenizer) -> npt.NDArray[np.bool_]:
    """Tell for every id whether its token goes on with the word before it, [vocabulary]."""
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    sentencepiece = any(token.startswith("▁") for token in vocabulary)
    continues = np.zeros(tokenizer.vocab_size, np.bool_)
    for token, index in vocabulary.items():
        continues[index] = not token.startswith("▁") if sentencepiece else token.startswith("##")
    return continues


def _numpy_pairs(
    tokenizer: LoadedTokenizer, steps: Sequence[Sequence[Sample]], row_tokens: int
) -> Iterator[int]:
    """Build a batch the plain way: a loop over samples, numpy within each."""
    import torch

    generator = np.random.default_rng(0)
    for step in steps:
        ids = np.full((len(step), row_tokens), tokenizer.pad_id, np.int64)
        types = np.zeros_like(ids)
        labels = np.full_like(ids, -100)
        tokens = 0
        for row, (a, b, _) in enumerate(step):
            cls, sep = [tokenizer.cls_id], [tokenizer.sep_id]
            sample = (
                np.concatenate([cls, a, sep, b, sep]) if len(b) else np.concatenate([cls, a, sep])
            )
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
        _ = [torch.from_numpy(array) for array in (ids, types, labels)]
        yield tokens


if __name__ == "__main__":
    main()
