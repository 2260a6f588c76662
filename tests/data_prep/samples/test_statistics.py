"""Statistics of a corpus, checked against lists of known lengths."""

from collections import Counter
from itertools import chain
from pathlib import Path
from statistics import fmean, median_low

import numpy as np
import pytest

from data_prep.corpus.inspection import beginning_of
from data_prep.corpus.shards import Corpus
from data_prep.samples.statistics import CorpusStatistics, Lengths, gather_statistics
from tests.synthetic_corpora import draw_shards, numbered_corpus, write_corpus

SHARDS = draw_shards("statistics", (200, 1, 100))
DOCUMENTS = list(chain.from_iterable(SHARDS))


@pytest.fixture(scope="module")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> CorpusStatistics:
    corpus = numbered_corpus(tmp_path_factory.mktemp("statistics") / "corpus", SHARDS)
    corpus.vocab_size = corpus.num_tokens + 1000  # the numbers that do occur
    return gather_statistics(corpus, (64, 128), pairs="next_sentence", short_share=0.1)


def test_lengths_cover_all_shards(statistics: CorpusStatistics) -> None:
    """Lengths are counted over all shards."""
    for lengths, expected in (
        (statistics.documents, [sum(document) for document in DOCUMENTS]),
        (statistics.sentences, list(chain.from_iterable(DOCUMENTS))),
    ):
        assert dict(Counter(expected)) == {
            int(n): int(lengths.counts[n]) for n in np.flatnonzero(lengths.counts)
        }
        assert lengths.number == len(expected) and lengths.longest == max(expected)
        assert lengths.mean == pytest.approx(fmean(expected))
        assert lengths.quantile(0.5) == median_low(expected)


def test_every_token_is_counted(statistics: CorpusStatistics, tmp_path: Path) -> None:
    """Every token is counted."""
    counts = statistics.token_counts
    assert not counts[:1000].any() and (counts[1000:] == 1).all()
    write_corpus(
        tmp_path / "corpus", {"train": [[[[5, 6, 6], [7] * 40]], [[[6, 8], [5]]]]}, vocab_size=10
    )
    some = gather_statistics(Corpus.open(tmp_path / "corpus"), (16,), "none", 0.0)
    assert some.token_counts.tolist() == [0, 0, 0, 0, 0, 2, 3, 40, 1, 0]


def test_packings_match_epoch_index(statistics: CorpusStatistics) -> None:
    """Samples and rows are those of an epoch index."""
    tokens = sum(sum(document) for document in DOCUMENTS)
    for packing, row_tokens in zip(statistics.packings, (64, 128), strict=True):
        assert packing.row_tokens == row_tokens == packing.samples.longest
        sample_tokens = packing.samples.mean * packing.samples.number
        assert sample_tokens == pytest.approx(packing.fills.mean * packing.fills.number)
        assert sample_tokens > tokens and packing.fills.longest <= row_tokens
        assert 0 <= packing.padding_share < 0.1


def test_length_histograms_add() -> None:
    """Histograms of lengths add up."""
    both = Lengths.of(np.array([1, 5])) + Lengths.of(np.array([5, 9, 9]))
    assert both.counts.tolist() == [0, 1, 0, 0, 0, 2, 0, 0, 0, 2]
    assert [both.quantile(share) for share in (0.2, 0.6, 1.0)] == [1, 5, 9]
    empty = Lengths(np.zeros(1, np.int64))
    assert (empty.number, empty.mean, empty.longest) == (0, 0.0, 0)


def test_beginning_holds_whole_shards(tmp_path: Path) -> None:
    """The beginning of a corpus has whole shards and at least two documents."""
    corpus = numbered_corpus(tmp_path / "corpus", [[[10]], [[20]], [[30], [40]], [[50]]])
    taken = {
        tokens: [shard.counts.tokens for shard in beginning_of(corpus, tokens).shards]
        for tokens in (1, 30, 31, 100, 101, 10_000)
    }
    assert taken == {
        1: [10, 20],
        30: [10, 20],
        31: [10, 20, 70],
        100: [10, 20, 70],
        101: [10, 20, 70, 50],
        10_000: [10, 20, 70, 50],
    }
    part = beginning_of(corpus, 31)
    assert (part.num_documents, part.num_sentences, part.num_tokens) == (4, 4, 100)
    assert len(corpus.shards) == 4 and corpus.num_documents == 5
