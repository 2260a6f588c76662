"""The loader benchmark: its sides make batches of the same samples, as real builders would."""

import argparse
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.corpus.shards import Corpus
from data_prep.errors import UserError
from launch.bench import _parser
from launch.benchmarks import loader
from launch.benchmarks.batches import open_source
from launch.benchmarks.driver import Run

STEPS, ROWS, ROW_TOKENS = 2, 8, 64
RUN = Run(seconds=2.0, peak_bytes=10, result={"tokens": 10, "seconds": 1.0})


def parse(*words: str) -> argparse.Namespace:
    return _parser("loader").parse_args(["loader", *words])


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
    names = (loader.UNIFORM, loader.COLLATOR, loader.WHOLE_WORD_COLLATOR, loader.NUMPY_PAIRS)
    counts = [list(loader.batches_of(name, job)) for name in names]
    assert len(counts[0]) == STEPS + 1
    assert all(count == counts[0] for count in counts)
    assert 0.5 * ROWS * ROW_TOKENS < counts[0][0] <= ROWS * ROW_TOKENS
    # The limit gathers segments alone: at most three special tokens a sample fewer.
    for limit, all_tokens in zip(loader.batches_of(loader.LIMIT, job), counts[0], strict=True):
        assert 0.8 * all_tokens < limit < all_tokens


def test_segments_are_unmasked_corpus_text(
    job: dict[str, Any], tiny_corpus: Path, tiny_tokenizer: Path
) -> None:
    """Segments are contiguous tokens of the corpus, without masks."""
    corpus = Corpus.open(tiny_corpus)
    source = open_source(tiny_corpus, tiny_tokenizer, ROW_TOKENS, Path(job["plans"]))
    (batch,) = source.step(0, ROWS, 0, 1, ROWS)
    stream = b"".join(np.asarray(shard.tokens).astype("<u2").tobytes() for shard in corpus.shards)
    samples = loader.samples_of(batch)
    assert len(samples) == batch.counts["samples"]
    for sample in samples:
        for part in sample.segments:
            assert len(part) and part.astype("<u2").tobytes() in stream
        assert sample.label in (0, 1)


def test_offsets_separate_whole_words() -> None:
    """Offsets of tokens touch within a word alone."""
    continues = np.array([False, False, True, False])
    features = {
        "input_ids": [0, 1, 2, 3, 0],
        "token_type_ids": [0] * 5,
        "attention_mask": [1] * 5,
        "special_tokens_mask": [1, 0, 0, 0, 1],
    }
    loader.add_offsets(features, continues, pad_id=9, row_tokens=7)
    offsets = features["offset_mapping"]
    touching = [a[1] == b[0] for a, b in pairwise(offsets[:5])]
    assert touching == [False, True, False, False]
    assert {len(values) for values in features.values()} == {7}
    assert features["input_ids"][5:] == [9, 9]
    assert features["special_tokens_mask"][5:] == [1, 1]


def test_rows_have_all_peers() -> None:
    """Our loader rows come last, with ratios to their peers and the limit."""
    rows = loader.rows_of({name: [RUN] for name in loader.SIDES})
    ours = {row.name: set(row.ratio) for row in rows if row.ratio}
    assert [row.name for row in rows][-2:] == list(ours) == [loader.UNIFORM, loader.WHOLE_WORD]
    assert ours[loader.UNIFORM] == {loader.LIMIT, loader.COLLATOR, loader.NUMPY_PAIRS}
    assert ours[loader.WHOLE_WORD] == {loader.LIMIT, loader.WHOLE_WORD_COLLATOR}


def test_default_corpus_is_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a corpus, the loader is measured on the shipped sample."""
    jobs = {}

    def fake_side(module: str, name: str, job: Any, scratch: Path) -> Callable[[], Run]:
        jobs[name] = job
        return lambda: RUN

    monkeypatch.setattr(loader, "process_side", fake_side)
    rows = loader.run(parse("--quick"), tmp_path)
    assert Corpus.open(Path(jobs[loader.UNIFORM]["corpus"])).num_documents > 100
    assert {row.name for row in rows} == set(jobs) == set(loader.SIDES)


def test_corpus_needs_tokenizer(tmp_path: Path) -> None:
    """A corpus without its tokenizer is an error of one sentence."""
    with pytest.raises(UserError, match="belong together"):
        loader.run(parse("--corpus", "x"), tmp_path)
