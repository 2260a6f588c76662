"""CoNLL files become sentences with BIO tags; broken lines and tags are named."""

from pathlib import Path

import pytest

from data_prep.errors import UserError
from launch.downstream.data.conll import bio_tags, read_conll


def write(folder: Path, text: str) -> Path:
    """Write a CoNLL file."""
    path = folder / "a.conll"
    path.write_text(text, encoding="utf-8")
    return path


def test_sentences_end_at_blank_lines(tmp_path: Path) -> None:
    """Blank lines of any white space and document starts end sentences."""
    text = "-DOCSTART- O\n\nA B-x\nb I-x\n \t\n-DOCSTART- O\nc O\n\n\n"
    examples = read_conll(write(tmp_path, text.replace(" ", "\t"))).examples
    assert [(e.id, e.words, e.label) for e in examples] == [
        ("3", ("A", "b"), ("B-x", "I-x")),
        ("7", ("c",), ("O",)),
    ]


def test_column_of_tags(tmp_path: Path) -> None:
    """The last column has the tags, or the one that is named; Windows line ends are no tags."""
    path = write(tmp_path, "a N B-x\r\nb V O\r\n")
    assert read_conll(path).examples[0].label == ("B-x", "O")
    assert read_conll(path, 2).examples[0].label == ("N", "V")
    with pytest.raises(UserError, match=r"Line 1 .* has 3 columns"):
        read_conll(path, 4)


def test_tab_at_line_end_separates_nothing(tmp_path: Path) -> None:
    """A tab at the end of a line, or on a blank one, leaves a file separated by spaces."""
    examples = read_conll(write(tmp_path, "a O\t\nb B-x\n\t\nc O\n")).examples
    assert [e.label for e in examples] == [("O", "B-x"), ("O",)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a O\nb\n", "Line 2 of .* has one column, 'b'"),
        ("a O\n\nb x O\n", "Line 3 of .* has 3 columns, those before it 2"),
        ("a O\nb B-x\nc PER\n", "Line 3 of .* has the tag 'PER'"),
        ("a\tO\n\tO\n", "Line 2 of .* has no word"),
        ("\n\n", "no sentences"),
        ("a O\nb O\nc\tO\n", "Line 3 of .* by tabs, those before it by spaces"),
        ("a\tO\nb O\n", "Line 2 of .* by spaces, those before it by tabs"),
    ],
)
def test_broken_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    """The first line that is no word with a tag is refused by its number."""
    with pytest.raises(UserError, match=message):
        read_conll(write(tmp_path, text))


def test_bio_errors_are_counted(tmp_path: Path) -> None:
    """An entity that begins with I- is counted with its line, and begins there."""
    tagged = read_conll(write(tmp_path, "a B-x\nb I-y\nc O\nd I-x\n"))
    assert tagged.examples[0].label == ("B-x", "B-y", "O", "B-x")
    assert "has 2 BIO errors" in tagged.notes[0] and "lines 2, 4" in tagged.notes[0]


def test_iob1_is_no_error(tmp_path: Path) -> None:
    """A file of IOB1, whose B- stand between neighbours alone, is read as such."""
    tagged = read_conll(write(tmp_path, "a I-x\nb I-x\nc B-x\nd O\n"))
    assert tagged.examples[0].label == ("B-x", "I-x", "B-x", "O")
    assert "IOB1" in tagged.notes[0]


@pytest.mark.parametrize(
    "tags",
    ["B-x I-x O B-y B-x", "B-x E-x O S-y S-x", "B-x L-x O U-y U-x", "I-x I-x O I-y I-x"],
)
def test_schemes_agree(tags: str) -> None:
    """BIO, BIOES, BILOU and IOB1 spell the same entities."""
    assert bio_tags(tags.split()) == "B-x I-x O B-y B-x".split()


def test_parts_of_speech_stay(tmp_path: Path) -> None:
    """Tags that are no entities stay as they are."""
    assert read_conll(write(tmp_path, "a N\nb V\n")).examples[0].label == ("N", "V")
