"""A vocab.txt is read with the ids that transformers gives, or refused in one sentence."""

import json
from pathlib import Path

import pytest
from transformers import BertTokenizer

from data_prep.errors import UserError
from data_prep.tokenizers.foreign.vocabulary_file import read_vocabulary_file
from data_prep.tokenizers.roles import SPECIAL_TOKENS
from data_prep.tokenizers.wordpiece import read_vocabulary


def write(path: Path, *lines: str, end: str = "\n") -> Path:
    """Write BERT's special tokens and further lines."""
    path.write_bytes("".join(f"{line}{end}" for line in (*SPECIAL_TOKENS, *lines)).encode())
    return path


@pytest.mark.parametrize(
    ("lines", "end"),
    [
        (["stone", "river", "stone", "$", "$"], "\n"),
        (["stone", "", "river", "", "stone"], "\n"),
        (["stone", "river"], "\r\n"),
        (["stone  ", "river\t"], "\n"),
        (["stone", "a\x85b", "c\u2028d", "river"], "\n"),
        (["stone", "river", "", ""], "\n"),
    ],
)
def test_ids_match_transformers(lines: list[str], end: str, tmp_path: Path) -> None:
    """Repeated tokens, blank lines, line ends and trailing spaces shift no id."""
    path = write(tmp_path / "vocab.txt", *lines, end=end)
    ours, theirs = read_vocabulary(path, True), BertTokenizer.from_pretrained(tmp_path)
    text = "stone river $ stones"
    assert ours.encode(text).ids == theirs.encode(text)


def test_byte_order_mark_is_no_token(tmp_path: Path) -> None:
    """A byte order mark is no part of the first token."""
    path = write(tmp_path / "vocab.txt", "stone")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_vocabulary_file(path)["[PAD]"] == 0


def test_unreached_lines_hold_unused_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An earlier repetition and a blank line are logged, and hold a token that no text gives."""
    path = write(tmp_path / "vocab.txt", "[unused0]", "a", "", "a")
    assert list(read_vocabulary_file(path).items())[5:] == [
        ("[unused0]", 5), ("[unused1]", 6), ("[unused2]", 7), ("a", 8),
    ]  # fmt: skip
    assert "line 7: the token 'a' again, on line 9; the id 6" in capsys.readouterr().err


def test_space_tokens_keep_lines(tmp_path: Path) -> None:
    """A token that is a Unicode space, as in Chinese vocabularies, keeps its line, also the last.

    See huggingface/transformers#859, where a line separator shifted all ids behind it.
    """
    path = write(tmp_path / "vocab.txt", "a", "\u2028", "b", "\u3000")
    vocabulary = read_vocabulary_file(path)
    assert vocabulary["b"] == 7 and len(vocabulary) == 9


def test_other_encoding_is_refused(tmp_path: Path) -> None:
    """A vocabulary in Latin-1 is refused with its first line that is not UTF-8."""
    path = write(tmp_path / "vocab.txt", "stone")
    path.write_bytes(path.read_bytes() + "été\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"vocab\.txt is not UTF-8: line 7 has the byte 0xe9"):
        read_vocabulary(path, True)


@pytest.mark.parametrize("stated", [None, False])
def test_lost_capitals_are_reported(
    stated: bool | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cased vocabulary under `lowercase` is logged with the share of its lost tokens."""
    path = write(tmp_path / "vocab.txt", "Stone", "##É", "stone", "[unused1]", "漢")
    if stated is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": stated}))
    read_vocabulary(path, True)
    line = capsys.readouterr().err
    assert "2 of the 10 tokens" in line and "20%, such as Stone, ##É" in line
    assert ("tokenizer_config.json has do_lower_case false" in line) == (stated is not None)
    read_vocabulary(path, False)
    assert not capsys.readouterr().err


def test_fitting_vocabulary_is_not_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A vocabulary of lower-case words, and ideographs, gives no warning."""
    read_vocabulary(
        write(tmp_path / "vocab.txt", *"stone ##s 漢 ##字 ß ø [unused3] 한".split()), True
    )
    assert "warning" not in capsys.readouterr().err
