"""The cache of epoch indices: never incomplete or damaged, and safe with concurrent builders."""

import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from data_prep.corpus.shards import Corpus
from data_prep.errors import UserError
from data_prep.samples import epoch_index as epoch_index_module
from data_prep.samples.epoch_index import EpochIndex, EpochIndexKey, open_epoch_index
from tests.synthetic_corpora import draw_shards, numbered_corpus

KEY = EpochIndexKey(seed=3, epoch=0, row_tokens=64)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("epoch_index_cache") / "corpus"
    return numbered_corpus(path, draw_shards("plan", (20, 15)))


def contents(index: EpochIndex) -> list[object]:
    return [part.tolist() for part in index.read(np.arange(index.num_rows))]


def test_interrupted_index_is_not_opened(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index whose build fails is never opened."""
    packed = []

    def pack_until_full(*arguments: object) -> object:
        packed.append(arguments)
        if len(packed) == 2:
            raise OSError(28, "No space left on device")
        return real_pack(*arguments)  # type: ignore[arg-type]

    real_pack = epoch_index_module.pack
    monkeypatch.setattr(epoch_index_module, "pack", pack_until_full)
    with pytest.raises(UserError, match=r"disk that holds .* is full"):
        open_epoch_index(corpus, KEY, tmp_path)
    assert list(tmp_path.iterdir()) == [], "nothing incomplete stays"
    monkeypatch.undo()
    assert open_epoch_index(corpus, KEY, tmp_path).num_rows > 0


def test_killed_builder_leftovers_expire(corpus: Corpus, tmp_path: Path) -> None:
    """The files of a killed builder do no harm and are removed after a day."""
    expected = contents(open_epoch_index(corpus, KEY, tmp_path / "whole"))
    (built,) = (tmp_path / "whole").iterdir()
    killed = tmp_path / "killed"
    for age, name in ((0, "fresh"), (100_000, "old")):
        left = killed / f"{built.name}.{name}.partial"
        left.mkdir(parents=True)
        (left / "samples.bin").write_bytes(b"half")
        os.utime(left, (time.time() - age,) * 2)
    assert contents(open_epoch_index(corpus, KEY, killed)) == expected
    # The fresh one may belong to a builder on another machine.
    assert {path.name for path in killed.iterdir()} == {built.name, f"{built.name}.fresh.partial"}


@pytest.mark.parametrize("others", [1, 3])
def test_concurrent_builders_share_index(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """Concurrent builders end with one index that all can read."""
    together = threading.Barrier(others + 1, timeout=30)

    def write_together(*arguments: object) -> dict[str, int]:
        counts = real_write(*arguments)  # type: ignore[arg-type]
        together.wait()  # no builder renames before all have written
        return counts

    real_write = epoch_index_module._write_tables
    monkeypatch.setattr(epoch_index_module, "_write_tables", write_together)
    found: list[object] = []

    def build() -> None:
        found.append(contents(open_epoch_index(corpus, KEY, tmp_path)))

    threads = [threading.Thread(target=build) for _ in range(others + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == others + 1 and all(each == found[0] for each in found)
    assert len(list(tmp_path.iterdir())) == 1, "no leftovers"


@pytest.mark.parametrize(
    "damage", ["no plan.json", "no rows", "short", "long", "not JSON", "empty"]
)
def test_damaged_index_is_rebuilt(corpus: Corpus, tmp_path: Path, damage: str) -> None:
    """A damaged index is built again."""
    expected = contents(open_epoch_index(corpus, KEY, tmp_path))
    (built,) = tmp_path.iterdir()
    facts, rows, samples = (built / name for name in ("plan.json", "rows.bin", "samples.bin"))
    if damage == "no plan.json":
        facts.unlink()
    elif damage == "no rows":
        rows.unlink()
    elif damage == "short":
        samples.write_bytes(samples.read_bytes()[:-1])
    elif damage == "long":
        rows.write_bytes(rows.read_bytes() + bytes(8))
    elif damage == "not JSON":
        facts.write_text(facts.read_text()[:20])
    else:
        for path in (facts, rows, samples):
            path.unlink()
    assert contents(open_epoch_index(corpus, KEY, tmp_path)) == expected
    assert [path.name for path in tmp_path.iterdir()] == [built.name]


def test_index_build_is_logged(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Building an index logs its size; opening it logs nothing."""
    index = open_epoch_index(corpus, KEY, tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        f"train index of epoch 0: {index.num_samples:,} samples in {index.num_rows:,} rows" in line
    )
    assert f"of 64 tokens, {index.padding_share:.2%} padding, " in line and line.endswith(" s")
    open_epoch_index(corpus, KEY, tmp_path)
    assert capsys.readouterr().err == "", "opening a cached index logs nothing"


def test_index_states_dependencies(corpus: Corpus, tmp_path: Path) -> None:
    """The facts of an index state all that it depends on."""
    open_epoch_index(corpus, KEY, tmp_path)
    facts = json.loads(next(tmp_path.glob("*/plan.json")).read_text())
    assert {"corpus", "split", "weights", *vars(KEY)} <= set(facts)
