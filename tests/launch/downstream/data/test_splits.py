"""Sets of examples: what is split off, counted, left out and refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data_prep.errors import UserError
from launch.downstream.data.examples import Example
from launch.downstream.data.splits import read_splits, sample, split_dev
from launch.downstream.options import FinetuneOptions

Rows = Sequence[tuple[str, str]]
MANY: Rows = [(f"text {i}", str(i % 2)) for i in range(40)]


def write(path: Path, rows: Rows) -> Path:
    """Write a table of texts and labels."""
    path.write_text("\n".join(["text,label", *(f"{t},{label}" for t, label in rows)]), "utf-8")
    return path


def options_of(folder: Path, train: Rows, test: Rows, **more: Any) -> FinetuneOptions:
    """Return options for files that are written to a folder."""
    dev = more.pop("dev", None)
    return FinetuneOptions(
        model="m",
        task=more.pop("task", "classification"),
        train=write(folder / "train.csv", train),
        dev=dev and write(folder / "dev.csv", dev),
        test=write(folder / "test.csv", test),
        out=folder / "out",
        **more,
    )


def test_dev_is_split_from_train(tmp_path: Path) -> None:
    """Without --dev, a tenth of train is the dev set, the same one each time, and that is said."""
    options = options_of(tmp_path, MANY, [("x", "0")])
    splits = read_splits(options)
    assert len(splits.dev) == 4 and len(splits.train) == 36
    assert not {e.id for e in splits.dev} & {e.id for e in splits.train}
    assert [e.id for e in read_splits(options).dev] == [e.id for e in splits.dev]
    assert any("no --dev: 4 examples" in note for note in splits.notes)


def test_texts_are_not_split_apart() -> None:
    """Examples of one text, as questions about one paragraph, are on one side."""
    examples = [Example(str(i), f"text {i // 5}") for i in range(100)]
    train, dev = split_dev(examples)
    assert len(dev) == 10 and not {e.text for e in dev} & {e.text for e in train}
    with pytest.raises(UserError, match="one text alone"):
        split_dev(examples[:5])


def test_max_train_keeps_labels(tmp_path: Path) -> None:
    """`--max-train` takes so many examples; labels are those of the whole file."""
    splits = read_splits(options_of(tmp_path, MANY, [("x", "0")], max_train=1))
    assert len(splits.train) == len(splits.dev) == 1 and splits.labels == ("0", "1")
    assert [e.id for e in sample(splits.test, 1, "a")] == ["0"]


def test_unknown_labels_are_refused(tmp_path: Path) -> None:
    """A label in dev or test that train lacks is refused with its number and place."""
    options = options_of(tmp_path, MANY, [("x", "0"), ("y", "2"), ("z", "2")])
    with pytest.raises(UserError, match=r"test.csv has 1 labels .* lacks: '2' \(2\), .*line 3"):
        read_splits(options)
    options = options_of(tmp_path, MANY, MANY, dev=[("y", "7")])
    with pytest.raises(UserError, match=r"dev.csv has 1 labels"):
        read_splits(options)


def test_one_label_is_refused(tmp_path: Path) -> None:
    """A training file with one label alone is refused."""
    with pytest.raises(UserError, match="has one label, 'a'"):
        read_splits(options_of(tmp_path, [("x", "a"), ("y", "a")], [("x", "a")]))


def test_overlap_is_counted(tmp_path: Path) -> None:
    """Train examples that are in test are counted, and left out where that is asked."""
    test = [*MANY[:3], ("new", "1")]
    kept = read_splits(options_of(tmp_path, MANY, test, dev=MANY[2:4]))
    assert "2 of 40 train examples are also in dev: kept, see --drop-overlap" in kept.notes
    assert "3 of 40 train examples are also in test: kept, see --drop-overlap" in kept.notes
    assert "1 of 2 dev examples are also in test" in kept.notes
    dropped = read_splits(options_of(tmp_path, MANY, test, dev=MANY[2:4], drop_overlap=True))
    assert len(kept.train) == 40 and len(dropped.train) == 36


def test_empty_texts_are_counted(tmp_path: Path) -> None:
    """Empty texts are left out of train and scored in test, and their numbers are said."""
    splits = read_splits(options_of(tmp_path, [*MANY, ("", "1"), (" ", "0")], [("", "0")]))
    assert len(splits.train) + len(splits.dev) <= 42 and len(splits.test) == 1
    assert not any(e.is_empty for e in splits.train)
    assert any("test.csv has 1 empty texts: scored" in note for note in splits.notes)
    assert any("empty texts: left out" in note for note in splits.notes)


def test_several_labels_of_a_cell(tmp_path: Path) -> None:
    """Cells with a separator hold several labels, and may hold none."""
    rows = [("a", "x|y"), ("b", "x"), ("c", "")] * 4
    splits = read_splits(options_of(tmp_path, rows, rows, dev=rows, label_separator="|"))
    assert splits.is_multi_label and splits.labels == ("x", "y")
    assert splits.test[0].label == ("x", "y") and splits.test[2].label == ()


def test_numbers_of_regression(tmp_path: Path) -> None:
    """Regression reads numbers; a label that is none is refused with its line."""
    splits = read_splits(options_of(tmp_path, [("a", "1.5"), ("b", "2")], MANY, task="regression"))
    assert {e.label for e in (*splits.train, *splits.dev)} == {1.5, 2.0} and splits.labels == ()
    with pytest.raises(UserError, match=r"Line 3 .*'good', which is no number"):
        read_splits(options_of(tmp_path, [("a", "1"), ("b", "good")], MANY, task="regression"))
