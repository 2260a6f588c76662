"""Tables are read as they stand, whatever their format, and say what they lack."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from data_prep.errors import UserError
from launch.downstream.data.labels import are_lists, label_of, labels_of, number_of
from launch.downstream.data.tables import Columns, read_table

BOTH = Columns({"--text": "text", "--label": "label"})
# Texts that readers of tables like to take for missing values, numbers or quotes.
TEXTS = ["NA", "null", "01", "1e5", "", "None", "true", "a, b", 'say "no"', "ß 中文 \u2028 x"]


def cells_of(path: Path, columns: Columns = BOTH) -> list[list[object]]:
    """Return the cells of a file."""
    return [cells for _, cells in read_table(path, columns).rows]


def write(path: Path, text: str) -> Path:
    """Write a file and return its path."""
    path.write_text(text, encoding="utf-8")
    return path


def quoted(text: str) -> str:
    """Return a cell of a CSV file."""
    return '"' + text.replace('"', '""') + '"'


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_cells_stay_as_written(tmp_path: Path, suffix: str) -> None:
    """No text becomes a number, a missing value or another text, in any format."""
    path = tmp_path / f"a.{suffix}"
    rows = [{"label": f"0{i}", "other": "x", "text": text} for i, text in enumerate(TEXTS)]
    if suffix == "csv":
        lines = [f"{r['label']},x,{quoted(str(r['text']))}" for r in rows]
        write(path, "\n".join(["label,other,text", *lines]))
    elif suffix == "tsv":
        lines = [f"{r['label']}\tx\t{r['text']}" for r in rows]
        write(path, "\n".join(["label\tother\ttext", *lines]))
    elif suffix == "jsonl":
        write(path, "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    elif suffix == "json":
        write(path, json.dumps(rows))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert cells_of(path) == [[text, f"0{i}"] for i, text in enumerate(TEXTS)]


@pytest.mark.parametrize(("text", "label"), [("0", "1"), ("1", "2")])
def test_columns_by_number(tmp_path: Path, text: str, label: str) -> None:
    """A file without a header takes numbers, from 0 or from 1, and its first row is said."""
    path = write(tmp_path / "a.txt", "标题\t8\n二\t3\n")
    table = read_table(path, Columns({"--text": text, "--label": label}))
    assert [cells for _, cells in table.rows] == [["标题", "8"], ["二", "3"]]
    assert "--text is '标题', --label is '8'" in table.notes[0]


def test_number_in_header_is_name(tmp_path: Path) -> None:
    """A column that is called 1 is found by its name."""
    path = write(tmp_path / "a.csv", "2,1\nx,y\n")
    assert cells_of(path, Columns({"--text": "1", "--label": "2"})) == [["y", "x"]]


def test_semicolons_separate_too(tmp_path: Path) -> None:
    """A .csv of semicolons is read where its header then has the columns."""
    assert cells_of(write(tmp_path / "a.csv", "label;text\n1;a, b\n")) == [["a, b", "1"]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "sentence,label\nx,1\n", "no column 'text' but 'sentence', 'label': .*--text"),
        ("a.jsonl", '{"text": "x"}\n', "Line 1 .* no column 'label' but 'text': .*--label"),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"text"\n', "Line 2 .* is no JSON"),
        ("a.jsonl", "[1]\n", "Item 1 of .* no object"),
        ("a.csv", "text,label\nx,1\na,b,c\n", "Line 3 .* has 3 cells, but the first line has 2"),
        ("a.csv", 'text,label\n"x,1\n', "is no record of a table"),
        ("a.csv", "text,label,text\nx,1,y\n", "2 columns 'text'"),
        ("a.csv", "text,label\n", "no examples"),
        ("a.csv", "", "no column 'text'"),
        ("a.docx", "", "is no table"),
        ("a.parquet", "PAR", "cannot be read as Parquet"),
    ],
)
def test_broken_table_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    """What is wrong with a table is said in one sentence, with line and columns."""
    with pytest.raises(UserError, match=message):
        read_table(write(tmp_path / name, content), BOTH)


def test_number_beyond_columns_is_refused(tmp_path: Path) -> None:
    """A number beyond the last column is refused with how many there are."""
    path = write(tmp_path / "a.tsv", "x\ty\n")
    with pytest.raises(UserError, match=r"has 2 columns, but column 3 was named"):
        read_table(path, Columns({"--text": "1", "--label": "3"}))


def test_missing_and_foreign_bytes(tmp_path: Path) -> None:
    """A missing file and one that is not UTF-8 are refused."""
    with pytest.raises(UserError, match="There is no file"):
        read_table(tmp_path / "a.csv", BOTH)
    (tmp_path / "b.csv").write_bytes(b"text,label\n\xff,1\n")
    with pytest.raises(UserError, match="is not UTF-8"):
        read_table(tmp_path / "b.csv", BOTH)


def test_labels_of_cells() -> None:
    """Labels are text: numbers of Parquet and of text are the same, "01" is another."""
    assert [label_of("", cell) for cell in (1, 1.0, "1", " 1 ", "01", True)] == [
        *["1"] * 4,
        "01",
        "true",
    ]
    assert labels_of("", "a|b|a| ", "|") == ("a", "b")
    assert labels_of("", '["x", "y"]', None) == ("x", "y") == labels_of("", ["x", "y"], None)
    assert labels_of("", "", "|") == ()
    assert are_lists([("", ["t", '["a"]']), ("", ["t", "[]"])])
    assert not are_lists([("", ["t", '["a"]']), ("", ["t", "[a"])])
    assert number_of("", "2.5") == 2.5
    for cell in ("x", None, "nan", "inf"):
        with pytest.raises(UserError, match="is no number"):
            number_of("Line 1", cell)
    with pytest.raises(UserError, match="Line 1 has no label"):
        label_of("Line 1", "  ")
