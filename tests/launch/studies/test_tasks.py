"""Tasks are read as they stand in their files, and refused with a sentence."""

from pathlib import Path

import pytest

from data_prep.errors import UserError
from launch.studies.options import TaskOptions
from launch.studies.tasks import read_task


def write(folder: Path, suffix: str = ".csv", **texts: str) -> TaskOptions:
    """Write the three files of a task; those not given are a small good one."""
    tab = "\t" if suffix == ".tsv" else ","
    for part in ("train", "dev", "test"):
        good = f"label{tab}text\nworld{tab}a treaty in {part}\nsport{tab}a match in {part}\n"
        (folder / (part + suffix)).write_text(texts.get(part, good), encoding="utf-8")
    files = {part: folder / (part + suffix) for part in ("train", "dev", "test")}
    return TaskOptions(name="news", **files)


def test_labels_are_shared_by_parts(tmp_path: Path) -> None:
    """Labels are numbered in order, alike in all parts."""
    task = read_task(write(tmp_path, dev="text,label\na race,sport\n"))
    assert task.labels == ("sport", "world")
    assert task.train.labels == (1, 0)
    assert task.train.texts == ("a treaty in train", "a match in train")
    assert task.dev == type(task.dev)(("a race",), (0,))


def test_quotes_differ_in_csv_and_tsv(tmp_path: Path) -> None:
    """Quotes enclose a text in .csv and belong to it in .tsv."""
    quoted = read_task(write(tmp_path, train='label,text\nsport,"one, two"\nworld,x\n'))
    assert quoted.train.texts[0] == "one, two"
    plain = read_task(write(tmp_path, ".tsv", train='label\ttext\nsport\t"one, two\nworld\tx\n'))
    assert plain.train.texts[0] == '"one, two'


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    """Columns may have other names."""
    other = {
        part: f"sentence\tstars\nfine {part}\t1\npoor {part}\t0\n" for part in ("train", "dev")
    }
    options = write(tmp_path, ".tsv", **other, test="sentence\tstars\nso-so\t0\n")
    renamed = options.model_copy(update={"text": "sentence", "label": "stars"})
    assert read_task(renamed).dev.texts == ("fine dev", "poor dev")


def test_held_out_training_examples_are_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training example that is also held out is left out and counted."""
    texts = {
        "train": "label,text\nsport,one\nsport,two\nworld,three\nsport,four\n",
        "dev": "label,text\nsport,two\n",
        "test": "label,text\nworld,four\n",
    }
    task = read_task(write(tmp_path, **texts))
    assert task.train.texts == ("one", "three")
    assert task.test.texts == ("four",)
    assert "2 of 4 training examples are also in dev or test" in capsys.readouterr().err
    read_task(write(tmp_path))
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "text", "sentence"),
    [
        ("dev", "label,text\nart,a play\n", "has the label 'art', which no training example"),
        ("train", "label,text\nsport,a match in dev\n", "All examples of .* are also in"),
        ("test", "kind,text\nsport,a match\n", "has no column 'label' but kind, text"),
        ("train", "label,text\n", "has no examples"),
        ("train", "", "has no column 'text'"),
        ("test", "label,text\nsport\n", "Line 2 of .* has no text"),
        ("test", "label,text\nsport,  \n", "Line 2 of .* has no text"),
        ("test", "label,text\nsport,one, two\n", "Line 2 of .* has more cells than"),
        ("train", "label,text\nsport,one\nsport,two\n", "has one label, 'sport'"),
    ],
)
def test_unsuitable_file_is_refused(tmp_path: Path, part: str, text: str, sentence: str) -> None:
    """A file that does not fit the task is refused with a sentence that names it."""
    with pytest.raises(UserError, match=sentence) as refused:
        read_task(write(tmp_path, **{part: text}))
    assert f"{part}.csv" in str(refused.value)


def test_other_encoding_is_refused(tmp_path: Path) -> None:
    """A file that is not UTF-8 is refused."""
    options = write(tmp_path)
    options.test.write_bytes("label,text\nsport,caf\xe9\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"test\.csv cannot be read as UTF-8"):
        read_task(options)


def test_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    """A byte order mark is no part of the first column's name."""
    options = write(tmp_path)
    options.dev.write_text("\ufefflabel,text\nsport,a race\n", encoding="utf-8")
    assert read_task(options).dev.texts == ("a race",)


def test_fingerprint_ignores_paths(tmp_path: Path) -> None:
    """A task's fingerprint follows its examples and options, not its paths."""
    (tmp_path / "other").mkdir()
    one, same = read_task(write(tmp_path)), read_task(write(tmp_path / "other"))
    assert one.fingerprint == same.fingerprint
    dev = read_task(write(tmp_path, dev="label,text\nsport,a race\n"))
    rates = read_task(write(tmp_path).model_copy(update={"rates": [1.0]}))
    assert len({one.fingerprint, dev.fingerprint, rates.fingerprint}) == 3


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A file that does not exist is named in the error."""
    options = write(tmp_path)
    options.dev.unlink()
    with pytest.raises(UserError, match=r"news has no file .*dev\.csv: correct its path"):
        read_task(options)
