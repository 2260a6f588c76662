"""Decontamination: exactly the overlaps that a plain set of n-grams finds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.counter_rng import integers_below, key_of
from data_prep.errors import UserError
from data_prep.filters import decontamination as decontamination_module
from data_prep.filters.decontamination import EvaluationText
from data_prep.tokenize.backends import IdArray


def encode(texts: Sequence[str]) -> list[IdArray]:
    """Turn words that are numbers into those numbers, and other words into their lengths."""
    return [
        np.array(
            [int(word) if word.isdigit() else 60_000 + len(word) for word in text.split()], "<u2"
        )
        for text in texts
    ]


def draw(name: str, count: int, limit: int) -> list[int]:
    return integers_below(key_of("contamination", name), range(count), limit).tolist()


def evaluation(tmp_path: Path, texts: Sequence[Sequence[int]], ngram: int) -> EvaluationText:
    path = tmp_path / "evaluation.txt"
    path.write_text("".join(" ".join(map(str, text)) + "\n" for text in texts))
    return EvaluationText([path], ngram, encode)


def flat(documents: Sequence[Sequence[int]]) -> tuple[IdArray, Any]:
    ids = np.array([token for document in documents for token in document], "<u2")
    return ids, np.cumsum([0, *map(len, documents)])


def ngrams(tokens: Sequence[int], n: int) -> set[tuple[int, ...]]:
    return {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}


@pytest.mark.parametrize("n", [4, 5, 13])
@pytest.mark.parametrize("block", [1, 7, 1 << 15])
def test_overlaps_match_plain_set(
    n: int, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overlapping documents are those that a plain set of n-grams finds."""
    monkeypatch.setattr(decontamination_module, "_BLOCK", block)
    # Few letters for short n-grams, so that about half of the documents overlap by chance.
    letters = {4: 6, 5: 4, 13: 2}[n]
    texts = [draw(f"text {i}", 30 + i, letters) for i in range(4)]
    documents = [
        draw(f"document {i}", length, letters) for i, length in enumerate([*range(60)] * 2)
    ]
    wanted = set().union(*(ngrams(text, n) for text in texts))
    expected = [bool(ngrams(document, n) & wanted) for document in documents]
    assert 10 < sum(expected) < 110
    assert evaluation(tmp_path, texts, n).overlapping(*flat(documents)).tolist() == expected


def test_overlap_ends_at_document_bounds(tmp_path: Path) -> None:
    """An n-gram is found at either end of a document, and not across two documents."""
    piece = list(range(1000, 1013))
    noise = draw("noise", 50_000, 900)
    mine = evaluation(tmp_path, [[*range(2000, 2020), *piece, *range(3000, 3005)]], 13)
    documents = [
        noise,
        piece + noise[:40],
        [],
        noise[:40] + piece,
        noise[:40] + piece[:6],  # the piece, cut by the border
        piece[6:] + noise[:40],
        piece[:12],
        piece,
        [],
    ]
    expected = [False, True, False, True, False, False, False, True, False]
    assert mine.overlapping(*flat(documents)).tolist() == expected


def test_empty_documents_do_not_overlap(tmp_path: Path) -> None:
    """Neither no documents nor documents without tokens overlap."""
    mine = evaluation(tmp_path, [range(10)], 4)
    assert mine.overlapping(np.empty(0, "<u2"), np.array([0])).tolist() == []
    assert mine.overlapping(np.empty(0, "<u2"), np.array([0, 0, 0])).tolist() == [False, False]


def test_tokens_outside_documents_are_ignored(tmp_path: Path) -> None:
    """Tokens outside all documents are ignored."""
    mine = evaluation(tmp_path, [range(10)], 4)
    ids = np.array([*range(10), 50, 51, *range(10)], "<u2")
    assert mine.overlapping(ids, np.array([8, 12, 14])).tolist() == [False, False]


def test_every_ngram_is_found(tmp_path: Path) -> None:
    """Each of thousands of n-grams is found, and no changed one."""
    text = draw("long", 20_000, 50_000)
    mine = evaluation(tmp_path, [text], 6)
    assert mine.num_ngrams == len(ngrams(text, 6))
    pieces = [text[start : start + 6] for start in range(len(text) - 5)]
    assert mine.overlapping(*flat(pieces)).all()
    changed = [[*piece[:3], piece[3] ^ 1, *piece[4:]] for piece in pieces]
    assert not mine.overlapping(*flat(changed)).any()


LONG = "1 2 3 4 5 6 7 8"
OTHER = "11 12 13 14 15 16 17"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", f"{LONG}\n\n{OTHER}\n"),
        ("a.txt", f"\ufeff{LONG}\r\n{OTHER}"),
        ("a.tsv", f"sentence\tlabel\n{LONG}\t1\n{OTHER}\t0\n"),
        ("a.csv", f'id,text\n1,"{LONG}\n"\n2,"{OTHER}"\n'),
        ("a.json", json.dumps({"data": [{"q": [LONG], "n": 3}, {"a": {"t": OTHER, "b": None}}]})),
        ("a.json", f'{{"text": "{LONG}"}}\n{{"text": "{OTHER}"}}\n'),
        ("a.jsonl", f'{{"text": "{LONG}"}}\n\n["{OTHER}"]\n'),
    ],
)
def test_evaluation_formats_give_texts(name: str, content: str, tmp_path: Path) -> None:
    """Every format of evaluation file gives its texts one by one."""
    (tmp_path / name).write_text(content, newline="")
    mine = EvaluationText([tmp_path / name], 5, encode)
    # 4 and 3 n-grams: none joins one text to the next, or a text to its label.
    assert mine.num_ngrams == 7
    assert mine.overlapping(*flat([[*range(1, 9)], [*range(11, 18)]])).all()


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("missing.txt", None, "cannot be read"),
        ("a.txt", b"caf\xe9 " * 10, "cannot be parsed"),
        ("a.json", b'{"text": "one two', "cannot be parsed"),
        ("a.jsonl", b'{"text": "one"}\n{"text"\n', "cannot be parsed"),
        ("a.json", b"[" * 100_000, "cannot be parsed"),
        ("a.csv", b'"' + b"x" * 200_000, "cannot be parsed"),
        ("a.txt", b"", "hold no text of 5 tokens"),
        ("a.txt", b"1 2 3 4\n5 6 7 8\n", "hold no text of 5 tokens"),
    ],
)
def test_bad_evaluation_file_is_refused(
    name: str, content: bytes | None, complaint: str, tmp_path: Path
) -> None:
    """An unreadable evaluation file is refused with its name and the recipe key."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=complaint) as caught:
        EvaluationText([path], 5, encode)
    assert str(path) in str(caught.value) and "clean.evaluation" in str(caught.value)


def test_evaluation_folder_is_refused(tmp_path: Path) -> None:
    """A folder instead of an evaluation file is refused."""
    with pytest.raises(UserError, match="cannot be read"):
        EvaluationText([tmp_path], 5, encode)
