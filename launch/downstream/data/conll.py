"""CoNLL files: a word and its tag a line, a blank line after each sentence.

Tags of entities come in several schemes: BIO (`B-` at each start, also called IOB2), IOB1 (`B-`
between neighbours of a type alone), and those with marks of ends (BIOES, BILOU). All become BIO.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from data_prep.errors import UserError
from launch.downstream.data.examples import Example

_DOCUMENT_START = "-DOCSTART-"
_ENTITY = re.compile(r"(?P<mark>[BIESLU])-(?P<kind>.+)")
_TO_BIO = {"B": "B", "S": "B", "U": "B", "I": "I", "E": "I", "L": "I"}
OUTSIDE = "O"


class Tagged(NamedTuple):
    """Sentences of a file, and what is to be said about its tags."""

    examples: list[Example]
    notes: list[str]


class _Line(NamedTuple):
    number: int
    word: str
    tag: str


def read_conll(path: Path, label_column: int | None = None) -> Tagged:
    """Read the sentences of a CoNLL file; lines that begin with `-DOCSTART-` are left out.

    Args:
        path: of the file. Columns are separated by tabs where the first line of a word has
            any, else by white space; the first column is the word.
        label_column: number of the tags' column, from 1; the last column without it.

    Raises:
        UserError: for a file that is missing or empty, and for the first line without a tag or
            with a tag that fits no scheme, or with another separator; it is named by its number.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}: correct the path.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}): convert it first.") from None
    sentences = list(_sentences(path, text, label_column))
    if not sentences:
        raise UserError(f"{path} has no sentences: give another file.")
    if not any(_ENTITY.fullmatch(line.tag) for lines in sentences for line in lines):
        return Tagged(
            [_example(path, lines, [line.tag for line in lines]) for lines in sentences], []
        )
    _check_tags(path, sentences)
    examples, notes = _to_bio(path, sentences)
    return Tagged(examples, notes)


def _sentences(path: Path, text: str, label_column: int | None) -> Iterator[list[_Line]]:
    lines: list[_Line] = []
    width = 0
    has_tabs: bool | None = None
    # Not `splitlines`: words of the web hold line separators of Unicode.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.split()[0].startswith(_DOCUMENT_START):
            if lines:
                yield lines
            lines = []
            continue
        has_tabs = "\t" in line.strip() if has_tabs is None else has_tabs
        cells = _cells(f"Line {number} of {path}", line.strip("\r"), has_tabs)
        width = width or len(cells)
        lines.append(_read_line(f"Line {number} of {path}", number, cells, width, label_column))
    if lines:
        yield lines


def _cells(where: str, line: str, has_tabs: bool) -> list[str]:
    """Return the columns of a line, which has the separator of the first one."""
    # A line of one word has no separator to compare; its missing column is refused later.
    if has_tabs == ("\t" in line.strip()) or len(line.split()) == 1:
        return line.split("\t" if has_tabs else None)
    own, first = ("spaces", "tabs") if has_tabs else ("tabs", "spaces")
    raise UserError(f"{where} separates columns by {own}, those before it by {first}: correct it.")


def _read_line(
    where: str, number: int, cells: Sequence[str], width: int, label_column: int | None
) -> _Line:
    if len(cells) < 2:
        raise UserError(f"{where} has one column, {cells[0]!r}: a word needs a tag behind it.")
    if len(cells) != width:
        raise UserError(f"{where} has {len(cells)} columns, those before it {width}: correct it.")
    if label_column is not None and not 1 < label_column <= width:
        raise UserError(
            f"{where} has {width} columns, of which the first is the word: correct --label "
            f"{label_column}."
        )
    word, tag = cells[0].strip(), cells[(label_column or width) - 1].strip()
    if not word or not tag:
        raise UserError(f"{where} has no {'tag' if word else 'word'}: complete it.")
    return _Line(number, word, tag)


def _check_tags(path: Path, sentences: Sequence[Sequence[_Line]]) -> None:
    for lines in sentences:
        for line in lines:
            if line.tag != OUTSIDE and not _ENTITY.fullmatch(line.tag):
                raise UserError(
                    f"Line {line.number} of {path} has the tag {line.tag!r}, but tags of entities "
                    f"are {OUTSIDE}, B-TYPE and I-TYPE: correct it."
                )


def _to_bio(path: Path, sentences: Sequence[Sequence[_Line]]) -> tuple[list[Example], list[str]]:
    """Return BIO tags for all sentences; an entity without its `B-` begins at its first word."""
    broken = [line.number for lines in sentences for line in _without_start(lines)]
    starts = sum(line.tag[:2] in ("B-", "S-", "U-") for lines in sentences for line in lines)
    examples = [
        _example(path, lines, bio_tags([line.tag for line in lines])) for lines in sentences
    ]
    if not broken:
        return examples, []
    if _is_iob1(sentences):
        return examples, [f"{path} has tags of the scheme IOB1 ({starts} B-): read as BIO"]
    listed = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
    return examples, [
        f"{path} has {len(broken)} BIO errors, entities that begin with I- (lines {listed}): each "
        "is read as the begin of an entity"
    ]


def _without_start(lines: Sequence[_Line]) -> Iterator[_Line]:
    """Yield the lines whose tag continues an entity that has not begun."""
    previous = OUTSIDE
    for line in lines:
        if line.tag[:2] in ("I-", "E-", "L-") and (
            previous[1:] != line.tag[1:] or previous[:1] in "ESLU"
        ):
            yield line
        previous = line.tag


def _is_iob1(sentences: Sequence[Sequence[_Line]]) -> bool:
    """Return whether each `B-` stands right behind an entity of its type, as in IOB1 alone."""
    for lines in sentences:
        for previous, line in pairwise([_Line(0, "", OUTSIDE), *lines]):
            if line.tag[:2] in ("S-", "U-", "E-", "L-"):
                return False
            if line.tag.startswith("B-") and previous.tag[1:] != line.tag[1:]:
                return False
    return True


def bio_tags(tags: Sequence[str]) -> list[str]:
    """Return tags of any scheme as BIO; what continues nothing begins an entity."""
    found: list[str] = []
    ended = True
    previous = ""
    for tag in tags:
        match = _ENTITY.fullmatch(tag)
        if match is None:
            found.append(tag)
            ended, previous = True, ""
            continue
        starts = _TO_BIO[match["mark"]] == "B" or ended or previous != match["kind"]
        found.append(f"{'B' if starts else 'I'}-{match['kind']}")
        ended, previous = match["mark"] in "ESLU", match["kind"]
    return found


def _example(path: Path, lines: Sequence[_Line], tags: Sequence[str]) -> Example:
    words = tuple(line.word for line in lines)
    return Example(
        id=str(lines[0].number),
        text=" ".join(words),
        label=tuple(tags),
        where=f"Line {lines[0].number} of {path}",
        words=words,
    )
