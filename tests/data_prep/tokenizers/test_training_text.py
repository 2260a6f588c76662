"""Text for the training of a WordPiece: bounded pieces without words that become [UNK]."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from data_prep.tokenizers.training_text import TrainingText
from data_prep.tokenizers.wordpiece import train_wordpiece

ROOT = Path(__file__).parents[3]
NORMALIZER = BertNormalizer(lowercase=True)


def words_of(text: str) -> list[str]:
    """Return the words of BERT's pipeline."""
    pairs = BertPreTokenizer().pre_tokenize_str(NORMALIZER.normalize_str(text))
    return [word for word, _ in pairs]


def prepare(*texts: str) -> tuple[list[str], int]:
    """Return the pieces of some texts, and how many words were left out."""
    text = TrainingText(lambda: texts, NORMALIZER.normalize_str)
    return list(text.pieces()), text.left_out


@pytest.mark.parametrize(
    "text",
    [
        "short words only",
        "a" * 101 + " b",
        "x" * 100 + ",tail of" + "y" * 300 + "!end",
        "漢字" * 5_000 + "abc" + "漢" * 4_000,
        "word " * 3_000,
        "-".join(["join"] * 2_000),
        "한국어" * 12 + " " + "한국어" * 12,
        "é" * 100 + " " + "e\u0301" * 60 + " " + "İ" * 60,
        "https://example.org/" + "Q" * 150 + "?a=b",
        "soft\u00adhyphen" * 30,
    ],
)
def test_only_overlong_words_are_left_out(text: str) -> None:
    """The words that remain are those of at most 100 characters, in their order."""
    pieces, left_out = prepare(text)
    kept = [word for word in words_of(text) if len(word) <= 100]
    assert [word for piece in pieces for word in words_of(piece)] == kept
    assert left_out == len(words_of(text)) - len(kept)
    assert max(map(len, pieces)) <= 4_000


@pytest.mark.parametrize("unit", ["a", "ACGT", "한", "e\u0301", "0123456789abcdef"])
def test_long_word_trains_in_seconds(unit: str) -> None:
    """A word of two million characters neither takes time nor enters the vocabulary."""
    texts = ["the quiet river carried the ship"] * 9 + [unit * (2_000_000 // len(unit))]
    started = time.process_time()
    tokenizer: Tokenizer = train_wordpiece(
        lambda: texts, vocab_size=200, lowercase=True, alphabet=100
    )
    assert time.process_time() - started < 10
    assert max(map(len, tokenizer.get_vocab())) <= 100
    assert "river" in tokenizer.get_vocab()


def test_left_out_words_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """The log has how many words were left out."""
    texts = ["a quiet river " + "x" * 200 + " the quiet river " + "y" * 101]
    train_wordpiece(lambda: texts, vocab_size=100, lowercase=True, alphabet=100)
    assert "2 words of more than 100 characters are left out" in capsys.readouterr().err


@pytest.mark.parametrize("expression", ["'数学是研究数量结构' * 700_000", "'abc, ' * 1_000_000"])
def test_training_memory_is_bounded(expression: str) -> None:
    """A line of 6 million ideographs takes no more memory than many short ones."""
    code = (
        "import resource, sys\n"
        "from data_prep.tokenizers.wordpiece import train_wordpiece\n"
        f"text = {expression}\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "train_wordpiece(lambda: [text], vocab_size=200, lowercase=True, alphabet=100)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 300_000  # KiB
