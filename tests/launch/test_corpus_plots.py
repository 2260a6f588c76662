"""The table and the plots of a corpus."""

import sys
from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.samples.statistics import CorpusStatistics, Lengths, Packing
from launch.corpus_plots import describe, draw


@pytest.fixture
def statistics() -> CorpusStatistics:
    counts = np.zeros(1000, np.int64)
    counts[5:505] = 50_000 // np.arange(1, 501)
    return CorpusStatistics(
        documents=Lengths.of(np.arange(20, 2000)),
        sentences=Lengths.of(np.repeat([4, 17, 30], [1000, 3000, 1000])),
        token_counts=counts,
        packings=tuple(
            Packing(
                row_tokens=tokens,
                samples=Lengths.of(np.repeat([40, tokens], [300, 700])),
                fills=Lengths.of(np.repeat([tokens // 2, tokens], [10, 790])),
            )
            for tokens in (128, 512)
        ),
    )


def test_statistics_table(statistics: CorpusStatistics) -> None:
    """The table has the statistics of the corpus."""
    lines = [" ".join(line.split()) for line in describe(statistics).splitlines()]
    assert lines[0] == "tokens number mean median 95 % longest"
    assert lines[1] == "documents 1,980 1009.5 1,009 1,900 1,999"
    assert lines[2] == "sentences 5,000 17.0 17 30 30"
    assert lines[3] == "samples at 128 1,000 101.6 128 128 128"
    assert "rows of 128: 800, with 1.2 samples each and 0.62% padding" in lines
    assert "rows of 512: 800, with 1.2 samples each and 0.62% padding" in lines
    total = int(statistics.token_counts.sum())
    assert f"{total:,} tokens of 500 different ids (1,000 in the vocabulary)" in lines
    assert "0 ids occur fewer than 10 times, 500 never" in lines


def test_commonest_ids_cover_half(statistics: CorpusStatistics) -> None:
    """The stated number of ids covers half of the tokens."""
    counts = statistics.token_counts
    number = int(describe(statistics).split("are of the ")[1].split()[0])
    commonest = sorted(counts.tolist(), reverse=True)
    assert sum(commonest[:number]) >= counts.sum() / 2 > sum(commonest[: number - 1])


def test_three_plots_are_drawn(statistics: CorpusStatistics, tmp_path: Path) -> None:
    """Three plots are drawn."""
    paths = draw(statistics, tmp_path / "new" / "stats")
    assert [path.name for path in paths] == ["lengths.png", "frequencies.png", "packing.png"]
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000


def test_constant_lengths_are_drawn(tmp_path: Path) -> None:
    """A corpus in which all lengths are equal is drawn too."""
    one = Lengths.of(np.array([7]))
    packing = Packing(row_tokens=16, samples=one, fills=one)
    counts = np.bincount([3], minlength=9)
    statistics = CorpusStatistics(
        documents=one, sentences=one, token_counts=counts, packings=(packing,)
    )
    assert len(draw(statistics, tmp_path)) == 3
    assert "half of all tokens are of the 1 commonest ids" in describe(statistics)


def test_drawing_errors_are_one_sentence(
    statistics: CorpusStatistics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing matplotlib and an impossible folder are refused in one sentence."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"plot .*lengths\.png cannot be written"):
        draw(statistics, tmp_path / "file")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"need matplotlib: pip install"):
        draw(statistics, tmp_path)
