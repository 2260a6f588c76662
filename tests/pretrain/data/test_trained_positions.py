"""The positions that a run trains, against those of its batches."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.corpus.shards import Corpus
from data_prep.manifest import write_json
from data_prep.samples.epoch_index import EpochIndex, EpochIndexKey, open_epoch_index
from pretrain.config.phases import phases_of
from pretrain.config.train import PhaseOptions, TrainOptions
from pretrain.data.trained_positions import TrainedPositions
from tests.pretrain.conftest import OpenSource
from tests.synthetic_corpora import numbered_corpus


def phases(*lengths: int) -> TrainOptions:
    """Return a run of two steps for each length of rows."""
    parts = [PhaseOptions(steps=2, row_tokens=length) for length in lengths]
    return TrainOptions(steps=2 * len(parts), batch_rows=4, micro_rows=4, phases=parts)


def test_positions_are_those_of_the_batches(open_source: OpenSource) -> None:
    """After each step, as many positions are trained as the batches of the run had so far."""
    train = phases(32, 64, 16)
    sources = {length: open_source(row_tokens=length) for length in (16, 32, 64)}
    trained = TrainedPositions.of(phases_of(train), sources)
    found = {0: 0}
    for step in range(train.steps):
        source = sources[(32, 64, 16)[step // 2]]
        whole = source.rows(np.arange(source.epoch_index(0).num_rows), 1024)
        found[step + 1] = max(found[step], int(whole.positions.max()) + 1)
    assert [trained.after(step) for step in found] == list(found.values()) == [0, 32, 32, *[64] * 4]
    assert trained.at_end == 64


def test_copied_positions_count_as_trained(open_source: OpenSource) -> None:
    """Positions that were trained before count from the start."""
    trained = TrainedPositions.of(phases_of(phases(32)), {32: open_source(row_tokens=32)}, 48)
    assert [trained.after(step) for step in range(3)] == [48, 48, 48]


@pytest.mark.parametrize("pairs", ["next_sentence", "sentence_order", "none"])
def test_short_documents_leave_positions_untrained(pairs: str, tmp_path: Path) -> None:
    """Where no document fills a row, the longest sample counts, not the row."""
    corpus = numbered_corpus(tmp_path / "corpus", [[[9, 8, 7], [20, 30], [5]], [[11, 40], [3]]])
    key = EpochIndexKey(seed=0, epoch=0, row_tokens=512, pairs=pairs)  # type: ignore[arg-type]
    index = open_epoch_index(corpus, key, tmp_path / "cache")
    samples, _, _ = index.read(np.arange(index.num_rows))
    lengths = samples["a_length"].astype(int) + samples["b_length"] + 2 + (samples["b_length"] > 0)
    assert index.longest_sample == lengths.max() < 512


def test_index_of_earlier_version_is_scanned(open_source: OpenSource, tmp_path: Path) -> None:
    """An index that does not state its longest sample gives the same figure."""
    spec = open_source().spec
    corpus = Corpus.open(spec.corpus_path, "train")
    key = EpochIndexKey(seed=0, epoch=0, row_tokens=48)
    index = open_epoch_index(corpus, key, tmp_path)
    (folder,) = tmp_path.iterdir()
    facts = {"rows": index.num_rows, "samples": index.num_samples, "tokens": index.num_tokens}
    write_json(folder / "plan.json", facts)
    assert EpochIndex(folder, key).longest_sample == index.longest_sample == 48
