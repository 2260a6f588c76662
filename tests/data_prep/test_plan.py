"""Plans: the same from anyone who builds them, found again, and never found half-built."""

import os
from pathlib import Path

import numpy as np
import pytest

from data_prep import plan as plan_module
from data_prep.errors import UserError
from data_prep.pairs import SampleArray, make_samples
from data_prep.plan import MAX_ROW_TOKENS, Plan, PlanKey, open_plan
from data_prep.shards import Corpus
from tests.corpora import draw_shards, numbered_corpus, write_corpus

KEY = PlanKey(seed=3, epoch=0, row_tokens=64)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Return three shards; the second has a single document."""
    path = tmp_path_factory.mktemp("plan") / "corpus"
    return numbered_corpus(path, draw_shards("plan", (20, 1, 15)))


def key_for(**changes: int) -> PlanKey:
    return PlanKey(**{**vars(KEY), **changes})


def contents(cache: Path) -> dict[str, bytes]:
    files = (path for path in cache.rglob("*") if path.is_file())
    return {str(path.relative_to(cache)): path.read_bytes() for path in files}


def everything(plan: Plan) -> tuple[SampleArray, list[int], list[int]]:
    samples, numbers, rows = plan.read(np.arange(plan.num_rows))
    return samples, numbers.tolist(), rows.tolist()


def test_two_builds_give_the_same_files_byte_for_byte(corpus: Corpus, tmp_path: Path) -> None:
    for name in ("a", "b"):
        open_plan(corpus, KEY, tmp_path / name)
    assert len(contents(tmp_path / "a")) == 3
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_an_epoch_holds_every_sample_of_every_shard_once(corpus: Corpus, tmp_path: Path) -> None:
    plan = open_plan(corpus, KEY, tmp_path)
    samples, numbers, rows = everything(plan)
    shards = corpus.shards
    partners = [shards[0], shards[2], shards[2]]
    made = [
        make_samples(shard, partner, 64, seed=3, epoch=0).tolist()
        for shard, partner in zip(shards, partners, strict=True)
    ]
    assert sorted(samples.tolist()) == sorted(sample for shard in made for sample in shard)
    assert sorted(numbers) == list(range(plan.num_samples))
    assert sorted(set(rows)) == list(range(plan.num_rows)) and rows == sorted(rows)
    tokens = 3 + samples["a_length"].astype(int) + samples["b_length"]
    assert np.bincount(rows, tokens).max() <= 64
    assert plan.num_tokens == tokens.sum()
    assert plan.padding_share == pytest.approx(1 - tokens.sum() / (64 * plan.num_rows))


def test_any_rows_in_any_order_are_those_of_the_whole(corpus: Corpus, tmp_path: Path) -> None:
    plan = open_plan(corpus, KEY, tmp_path)
    _, numbers, rows = everything(plan)
    asked = np.array([7, 0, 7, plan.num_rows - 1])
    samples, found, places = plan.read(asked)
    for index, position in enumerate(asked):
        expected = [n for n, row in zip(numbers, rows, strict=True) if row == position]
        assert found[places == index].tolist() == expected
    by_number = dict(zip(numbers, everything(plan)[0].tolist(), strict=True))
    assert samples.tolist() == [by_number[number] for number in found.tolist()]


@pytest.mark.parametrize("change", [{"epoch": 1}, {"seed": 4}, {"row_tokens": 65}])
def test_another_epoch_seed_or_length_is_another_plan(
    corpus: Corpus, tmp_path: Path, change: dict[str, int]
) -> None:
    first = everything(open_plan(corpus, KEY, tmp_path))[0]
    second = everything(open_plan(corpus, key_for(**change), tmp_path))[0]
    assert first.tobytes() != second.tobytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_another_epoch_visits_rows_in_another_order(corpus: Corpus, tmp_path: Path) -> None:
    first, second = (
        everything(open_plan(corpus, key_for(epoch=epoch), tmp_path))[1] for epoch in (0, 1)
    )
    size = min(len(first), len(second))
    assert np.mean(np.array(first[:size]) == np.array(second[:size])) < 0.1


def test_a_plan_is_found_again(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = everything(open_plan(corpus, KEY, tmp_path))

    def build_again(*arguments: object) -> None:
        raise AssertionError("the plan is in the cache")

    monkeypatch.setattr(plan_module, "_write_tables", build_again)
    assert everything(open_plan(corpus, KEY, tmp_path))[1:] == first[1:]


def test_a_plan_of_another_corpus_or_split_is_not_taken_for_it(
    corpus: Corpus, tmp_path: Path
) -> None:
    shards = draw_shards("another", (20,))
    other = numbered_corpus(tmp_path / "other", shards)
    documents = [[[[5] * length for length in document] for document in shards[0]]]
    write_corpus(tmp_path / "both", {"train": documents, "validation": documents})
    splits = [Corpus.open(tmp_path / "both", split) for split in ("train", "validation")]
    for source in (corpus, other, *splits):
        open_plan(source, KEY, tmp_path / "plans")
    assert len(list((tmp_path / "plans").iterdir())) == 4


def test_a_plan_that_breaks_off_is_never_found(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = []

    def pack_until_full(*arguments: object) -> object:
        packed.append(arguments)
        if len(packed) == 2:
            raise OSError("no space left on device")
        return real_pack(*arguments)  # type: ignore[arg-type]

    real_pack = plan_module.pack
    monkeypatch.setattr(plan_module, "pack", pack_until_full)
    with pytest.raises(OSError, match="no space left"):
        open_plan(corpus, KEY, tmp_path)
    assert list(tmp_path.iterdir()) == [], "nothing half-built stays"
    monkeypatch.undo()
    assert open_plan(corpus, KEY, tmp_path).num_rows > 0


def test_what_a_killed_builder_left_does_not_matter(corpus: Corpus, tmp_path: Path) -> None:
    expected = everything(open_plan(corpus, KEY, tmp_path / "whole"))[1:]
    (built,) = (tmp_path / "whole").iterdir()
    # In a container a restarted job often has the process id of the one that was killed.
    for process in (1, os.getpid()):
        left = tmp_path / "killed" / f"{built.name}.{process}.partial"
        left.mkdir(parents=True)
        (left / "samples.bin").write_bytes(b"half")
    assert everything(open_plan(corpus, KEY, tmp_path / "killed"))[1:] == expected


@pytest.mark.parametrize("documents", [0, 1])
def test_too_few_documents_are_refused(tmp_path: Path, documents: int) -> None:
    write_corpus(tmp_path / "corpus", {"train": [[[[5, 6], [7]]]] * documents})
    corpus = Corpus.open(tmp_path / "corpus")
    with pytest.raises(UserError, match=rf"train split of .* has {documents} document\(s\), but"):
        open_plan(corpus, KEY, tmp_path / "plans")


@pytest.mark.parametrize("row_tokens", [0, 15, MAX_ROW_TOKENS + 1])
def test_a_row_length_out_of_range_is_refused(corpus: Corpus, row_tokens: int) -> None:
    with pytest.raises(UserError, match=rf"Rows of {row_tokens} tokens .* from 16 to 32768"):
        open_plan(corpus, key_for(row_tokens=row_tokens), Path("nowhere"))


@pytest.mark.parametrize("row_tokens", [16, 128, 512])
def test_padding_is_low_on_text_of_ordinary_lengths(tmp_path: Path, row_tokens: int) -> None:
    corpus = numbered_corpus(tmp_path / "corpus", draw_shards("padding", (1500,)))
    plan = open_plan(corpus, key_for(row_tokens=row_tokens), tmp_path / "plans")
    assert 0 <= plan.padding_share <= 0.02
