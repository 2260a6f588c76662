"""The sides of the loader benchmark make batches of the same samples, as real builders would."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.corpus.shards import Corpus
from data_prep.tokenizers.folder import LoadedTokenizer, load_tokenizer
from launch.benchmarks import loader_sides as sides

STEPS, ROWS, ROW_TOKENS = 2, 8, 64


@pytest.fixture
def job(tmp_path: Path, tiny_corpus: Path, tiny_tokenizer: Path) -> dict[str, Any]:
    return {
        "corpus": str(tiny_corpus),
        "tokenizer": str(tiny_tokenizer),
        "plans": str(tmp_path / "plans"),
        "row_tokens": ROW_TOKENS,
        "rows": ROWS,
        "steps": STEPS,
    }


@pytest.fixture
def tokenizer(tiny_tokenizer: Path) -> LoadedTokenizer:
    return load_tokenizer(tiny_tokenizer)


def test_every_side_takes_the_same_number_of_tokens(job: dict[str, Any]) -> None:
    names = (sides.UNIFORM, sides.COLLATOR, sides.WHOLE_WORD_COLLATOR, sides.NUMPY_PAIRS)
    counts = [list(sides._batches_of(name, job)) for name in names]
    assert len(counts[0]) == STEPS + 1
    assert all(count == counts[0] for count in counts)
    assert 0.5 * ROWS * ROW_TOKENS < counts[0][0] <= ROWS * ROW_TOKENS
    # The limit gathers segments alone: at most three special tokens a sample fewer.
    for limit, all_tokens in zip(sides._batches_of(sides.LIMIT, job), counts[0], strict=True):
        assert 0.8 * all_tokens < limit < all_tokens


def test_samples_are_stretches_of_the_corpus_without_masks(
    job: dict[str, Any], tiny_corpus: Path, tokenizer: LoadedTokenizer
) -> None:
    corpus = Corpus.open(tiny_corpus)
    source = sides._source(sides.UNIFORM, job, corpus, tokenizer)
    (batch,) = sides._micro_batches(source, job, 0, 1)
    stream = b"".join(np.asarray(shard.tokens).astype("<u2").tobytes() for shard in corpus.shards)
    samples = sides._samples_of(batch)
    assert len(samples) == batch.counts["samples"]
    for a, b, label in samples:
        for part in (a, b):
            assert len(part) and part.astype("<u2").tobytes() in stream
        assert label in (0, 1)


def test_offsets_part_the_words_that_the_whole_word_collator_sees() -> None:
    continues = np.array([False, False, True, False])
    features = {
        "input_ids": [0, 1, 2, 3, 0],
        "token_type_ids": [0] * 5,
        "attention_mask": [1] * 5,
        "special_tokens_mask": [1, 0, 0, 0, 1],
    }
    sides._add_offsets(features, continues, pad_id=9, row_tokens=7)
    offsets = features["offset_mapping"]
    touching = [a[1] == b[0] for a, b in pairwise(offsets[:5])]
    assert touching == [False, True, False, False]
    assert {len(values) for values in features.values()} == {7}
    assert features["input_ids"][5:] == [9, 9]
    assert features["special_tokens_mask"][5:] == [1, 1]


def test_a_policy_that_this_version_lacks_is_known_beforehand() -> None:
    assert sides.can_mask(sides.UNIFORM)
    assert sides.can_mask(sides.WHOLE_WORD) == ("policy" in sides.MaskOptions.model_fields)
