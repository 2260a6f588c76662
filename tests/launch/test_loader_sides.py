"""The sides of the loader benchmark make batches of the same samples, as real builders would."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.corpus.shards import Corpus
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


def test_sides_take_same_tokens(job: dict[str, Any]) -> None:
    """Every side takes the same number of tokens."""
    names = (sides.UNIFORM, sides.COLLATOR, sides.WHOLE_WORD_COLLATOR, sides.NUMPY_PAIRS)
    counts = [list(sides.batches_of(name, job)) for name in names]
    assert len(counts[0]) == STEPS + 1
    assert all(count == counts[0] for count in counts)
    assert 0.5 * ROWS * ROW_TOKENS < counts[0][0] <= ROWS * ROW_TOKENS
    # The limit gathers segments alone: at most three special tokens a sample fewer.
    for limit, all_tokens in zip(sides.batches_of(sides.LIMIT, job), counts[0], strict=True):
        assert 0.8 * all_tokens < limit < all_tokens


def test_segments_are_unmasked_corpus_text(
    job: dict[str, Any], tiny_corpus: Path, tiny_tokenizer: Path
) -> None:
    """Segments are contiguous tokens of the corpus, without masks."""
    corpus = Corpus.open(tiny_corpus)
    source = sides.open_source(tiny_corpus, tiny_tokenizer, ROW_TOKENS, Path(job["plans"]))
    batch = next(sides.micro_batches(source, job))
    stream = b"".join(np.asarray(shard.tokens).astype("<u2").tobytes() for shard in corpus.shards)
    samples = sides.segments_of(batch)
    assert len(samples) == batch.counts["samples"]
    for a, b, label in samples:
        for part in (a, b):
            assert len(part) and part.astype("<u2").tobytes() in stream
        assert label in (0, 1)


def test_offsets_separate_whole_words() -> None:
    """Offsets of tokens touch within a word alone."""
    continues = np.array([False, False, True, False])
    features = {
        "input_ids": [0, 1, 2, 3, 0],
        "token_type_ids": [0] * 5,
        "attention_mask": [1] * 5,
        "special_tokens_mask": [1, 0, 0, 0, 1],
    }
    sides.add_offsets(features, continues, pad_id=9, row_tokens=7)
    offsets = features["offset_mapping"]
    touching = [a[1] == b[0] for a, b in pairwise(offsets[:5])]
    assert touching == [False, True, False, False]
    assert {len(values) for values in features.values()} == {7}
    assert features["input_ids"][5:] == [9, 9]
    assert features["special_tokens_mask"][5:] == [1, 1]
