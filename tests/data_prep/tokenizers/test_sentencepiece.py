"""SentencePiece tokenizers: ids equal to those of SentencePiece itself."""

import functools
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer

from data_prep.errors import UserError
from data_prep.tokenizers.sentencepiece import (
    to_fast_tokenizer,
    train_sentencepiece,
)

ROOT = Path(__file__).parents[3]
NOVELS = ROOT / "data_prep/sample_corpus/novels"
KINDS = ("unigram", "bpe")
ENGLISH = [
    line
    for path in sorted(NOVELS.glob("*/chapter_0[12].txt"))[:4]
    for line in path.read_text("utf-8").splitlines()
]
CHINESE = [
    "数学是研究数量、结构以及空间等概念及其变化的一门学科。",
    "从某种角度看属于形式科学的一种，数学利用抽象化和逻辑推理，",
    "由计数、计算、量度和对物体形状及运动的观察发展而成。",
    "数学家们拓展这些概念，以公式化新的猜想，１９４９年以及空间结构。",
]
# Marks, joiners, spaces, right-to-left: what graphemes and normal forms have rules for.
ODD = "  \u3000\u00a0\u2581\u0301\u0323\u0308\u200d\u200b\u200c\ufe0f\u0600\u0344\u0f77\u1100\u1161"
ODD += "가\uff76\uff9e\u3099\ufdfaſ´¨ﬁXEeéẞİς\u0345👩👧🏽\u202eم\u0651\r\n\t\x00\x85\u2028\ufeff"
ODD += "\ufffd\u0e33\ue000\U0010fffd"
odd_texts = st.lists(
    st.one_of(
        st.sampled_from(ODD),
        st.sampled_from(["[MASK]", "[UNK]", " the", "house", "数学", ",", "7"]),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=14,
).map("".join)


def train(lines: list[str], kind: Any, size: int = 400, **changes: Any) -> bytes:
    options = {"vocab_size": size, "lowercase": True, "alphabet": 200, **changes}
    return train_sentencepiece(lambda: lines, kind=kind, **options)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module", params=[True, False], ids=["lowercase", "cased"])
def model(request: pytest.FixtureRequest, kind: Any) -> bytes:
    return train(ENGLISH + CHINESE * 5, kind, lowercase=request.param)


def text_ids(tokenizer: Tokenizer, text: str | list[str]) -> list[int]:
    tokenizer.encode_special_tokens = True
    pretokenized = isinstance(text, list)
    ids: list[int] = tokenizer.encode(
        text, is_pretokenized=pretokenized, add_special_tokens=False
    ).ids
    return ids


@functools.cache
def small_models() -> tuple[Tokenizer, ...]:
    """Return a lower-case unigram tokenizer and a cased BPE one."""
    lines = [*ENGLISH[:200], *CHINESE]
    return tuple(
        to_fast_tokenizer(train(lines, kind, lowercase=kind == "unigram")) for kind in KINDS
    )


def test_ids_match_sentencepiece(model: bytes) -> None:
    """Ids equal those of SentencePiece on usual text."""
    reference, ours = SentencePieceProcessor(model_proto=model), to_fast_tokenizer(model)
    odd = ["two  spaces ", " a space", "ｆｕｌｌ　ｗｉｄｔｈ", "a▁b", "naïve cafe\u0301", "", " "]
    texts = [*ENGLISH, *CHINESE, *odd]
    assert [text_ids(ours, text) for text in texts] == reference.encode(texts)
    assert ours.get_vocab_size() == reference.get_piece_size()
    assert len({i for text in texts for i in text_ids(ours, text)}) > 300


def test_ids_match_sentencepiece_in_chinese(kind: Any) -> None:
    """Ids equal those of SentencePiece in Chinese."""
    phrases = re.split("[，。、]", "".join(CHINESE))
    lines = [f"{first}，{second}。" for first in phrases for second in phrases]
    model = train(lines, kind, size=88)
    reference, ours = SentencePieceProcessor(model_proto=model), to_fast_tokenizer(model)
    for text in (*CHINESE, *lines):
        assert text_ids(ours, text) == reference.encode(text)
    assert any(len(token) > 1 and "数" in token for token in ours.get_vocab())


def test_special_tokens_have_first_ids(model: bytes) -> None:
    """Special tokens have the first ids, and text never yields them."""
    ours = to_fast_tokenizer(model)
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert [ours.token_to_id(name) for name in names] == [0, 1, 2, 3, 4]
    assert ours.encode("[MASK]", "a").ids[:3] == [2, 4, 3] and ours.encode("a", "b").type_ids[-1]
    for text in ("[MASK]", "a[SEP]b", "[CLS] [PAD][UNK]"):
        ids = text_ids(ours, text)
        assert not {0, 2, 3, 4} & set(ids), "special tokens are for the pretraining code"
        assert ids == SentencePieceProcessor(model_proto=model).encode(text)


def test_text_decodes_unchanged(model: bytes) -> None:
    """Encoded text decodes to itself."""
    ours = to_fast_tokenizer(model)
    text = "she said, “well!” and 数学 (again)."
    known = "".join(c for c in text if c in {*"".join(ENGLISH), *"".join(CHINESE)})
    assert ours.decode(ours.encode(known).ids) == known


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_reproducible(kind: str) -> None:
    """Training gives the same bytes in every process."""
    code = (
        "import sys, hashlib; from data_prep.tokenizers.sentencepiece import train_sentencepiece\n"
        "lines = sys.stdin.read().splitlines()\n"
        f"model = train_sentencepiece(lambda: lines, kind='{kind}', vocab_size=400,"
        " lowercase=True, alphabet=200)\n"
        "print(hashlib.sha256(model).hexdigest())"
    )
    command = [sys.executable, "-c", code]
    text = "\n".join(ENGLISH)
    runs = [
        subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    expected = hashlib.sha256(train(text.splitlines(), kind)).hexdigest()
    assert [run.stdout.strip() for run in runs] == [expected] * 2
    # One line of our own; SentencePiece's log is silent.
    assert [len(run.stderr.splitlines()) for run in runs] == [1, 1]


def test_alphabet_is_most_frequent(kind: Any) -> None:
    """The alphabet is the most frequent characters."""
    lines = ["aqbb bbz aab baa abba " * 5] * 3
    ours = to_fast_tokenizer(train(lines, kind, size=10, alphabet=3))
    assert {token for token in ours.get_vocab() if len(token) == 1} == {"▁", "a", "b", "q"}
    assert ours.encode("z", add_special_tokens=False).ids[1:] == [1]


def test_cased_model_keeps_special_letters(kind: Any) -> None:
    """A cased model keeps the letters of the special tokens."""
    ours = to_fast_tokenizer(train(["abab ab ba " * 20] * 3, kind, size=24, lowercase=False))
    tokens = ours.encode("[MASK]", add_special_tokens=False).tokens
    ours.encode_special_tokens = True
    letters = ours.encode("[MASK]", add_special_tokens=False).tokens
    assert tokens == ["[MASK]"] and "".join(letters) == "▁[MASK]" and "[UNK]" not in letters


def test_long_lines_are_trained_on(kind: Any) -> None:
    """Long lines and lines with reserved characters are trained on."""
    long = "".join(f" wordlet{'aeiou'[i % 5]}" for i in range(5_000))
    ours = to_fast_tokenizer(train([long, "q▅u\0x y" * 9], kind, size=24))
    # SentencePiece itself drops a line that is too long, and one that has its mark.
    assert {*"wordlet", *"qux"} <= set(ours.get_vocab())
    unbroken = "数学" * 20_000
    assert {*"数学"} <= set(to_fast_tokenizer(train([unbroken], kind, size=9)).get_vocab())


@pytest.mark.parametrize(
    ("lines", "size", "message"),
    [
        (["abcd dcba"], 8, "vocab_size 8 is too small for 4 characters, which alone take 10 ids"),
        ([], 100, "The input has no text to train a tokenizer on"),
        (["", " \u3000", "\0"], 100, "The input has no text to train a tokenizer on"),
    ],
)
def test_impossible_vocabulary_is_refused(
    kind: Any, lines: list[str], size: int, message: str
) -> None:
    """Text that cannot give the vocabulary is refused in one sentence."""
    with pytest.raises(UserError, match=message):
        train(lines, kind, size)


def test_small_text_gives_fewer_ids(kind: Any) -> None:
    """A text that has not enough pieces gives the ids that it has, as for WordPiece."""
    largest = to_fast_tokenizer(train(ENGLISH[:60], kind, 50_000))
    size = largest.get_vocab_size()
    assert 200 < size < 50_000
    assert to_fast_tokenizer(train(ENGLISH[:60], kind, size)).get_vocab() == largest.get_vocab()


def test_turkish_capitals_fold(kind: Any) -> None:
    """With the casing of Turkish, I is the capital of dotless ı and İ of i, also in training."""
    lines = ["ISPARTA ıspanak İzmir izmir ılık IŞIK ışık iğne"] * 20
    ours = to_fast_tokenizer(train(lines, kind, size=60, lowercase="turkish"), turkish=True)
    for capital, small in (("ISPARTA", "ısparta"), ("İZMİR", "izmir"), ("I\u0307", "i")):
        assert text_ids(ours, capital) == text_ids(ours, small)
        assert ours.token_to_id("[UNK]") not in text_ids(ours, capital)
    assert text_ids(ours, "IŞIK") != text_ids(ours, "işik")


def test_reader_error_is_raised(kind: Any) -> None:
    """An error of the reader is raised unchanged."""
    calls: list[int] = []

    def texts() -> Iterator[str]:
        calls.append(1)
        yield from ENGLISH
        if len(calls) == 2:
            raise UserError("The disk was unplugged: plug it in.")

    with pytest.raises(UserError, match="unplugged"):
        train_sentencepiece(texts, kind=kind, vocab_size=400, lowercase=True, alphabet=200)
