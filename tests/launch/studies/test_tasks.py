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


def test_labels_are_numbered_in_order_and_shared_by_all_parts(tmp_path: Path) -> None:
    task = read_task(write(tmp_path, dev="text,label\na race,sport\n"))
    assert task.labels == ("sport", "world")
    assert task.train.labels == (1, 0)
    assert task.train.texts == ("a treaty in train", "a match in train")
    assert task.dev == type(task.dev)(("a race",), (0,))


def test_quotes_enclose_a_text_in_csv_and_belong_to_it_in_tsv(tmp_path: Path) -> None:
    quoted = read_task(write(tmp_path, train='label,text\nsport,"one, two"\nworld,x\n'))
    assert quoted.train.texts[0] == "one, two"
    plain = read_task(write(tmp_path, ".tsv", train='label\ttext\nsport\t"one, two\nworld\tx\n'))
    assert plain.train.texts[0] == '"one, two'


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    other = {
        part: f"sentence\tstars\nfine {part}\t1\npoor {part}\t0\n" for part in ("train", "dev")
    }
    options = write(tmp_path, ".tsv", **other, test="sentence\tstars\nso-so\t0\n")
    renamed = options.model_copy(update={"text": "sentence", "label": "stars"})
    assert read_task(renamed).dev.texts == ("fine dev", "poor dev")


def test_a_training_example_that_is_also_held_out_is_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, part: str, text: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence) as refused:
        read_task(write(tmp_path, **{part: text}))
    assert f"{part}.csv" in str(refused.value)


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    options = write(tmp_path)
    options.test.write_bytes("label,text\nsport,caf\xe9\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"test\.csv cannot be read as UTF-8"):
        read_task(options)


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    options = write(tmp_path)
    options.dev.write_text("\ufefflabel,text\nsport,a race\n", encoding="utf-8")
    assert read_task(options).dev.texts == ("a race",)


def test_the_fingerprint_follows_examples_and_options_but_not_paths(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, same = read_task(write(tmp_path)), read_task(write(tmp_path / "other"))
    assert one.fingerprint == same.fingerprint
    dev = read_task(write(tmp_path, dev="label,text\nsport,a race\n"))
    rates = read_task(write(tmp_path).model_copy(update={"rates": [1.0]}))
    assert len({one.fingerprint, dev.fingerprint, rates.fingerprint}) == 3


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    options = write(tmp_path)
    options.dev.unlink()
    with pytest.raises(UserError, match=r"news has no file .*dev\.csv: correct its path"):
        read_task(options)
