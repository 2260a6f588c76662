"""Samples shown as text, parsed and compared with the corpus."""

import re
from pathlib import Path

import pytest

from data_prep.corpus.shards import Corpus
from data_prep.errors import UserError
from data_prep.tokenizers.folder import load_tokenizer
from launch.samples import readable_samples
from tests.synthetic_corpora import WORDS

_MASKED = re.compile(r"\{(\S+) → (\S+)\}")


@pytest.fixture(scope="module")
def shown(tiny_corpus: Path, tiny_tokenizer: Path) -> list[str]:
    return list(readable_samples(tiny_corpus, tiny_tokenizer, 30, 64))


def segments_of(text: str) -> tuple[str, str]:
    """Return the heading and segments A and B, each on one line."""
    flat = re.sub(r"\s+", " ", text)
    match = re.fullmatch(r" sample \d+ (.*) to predict A (.*) B (.*)", flat)
    assert match, text
    return match[2], match[3]


def test_shown_samples_match_count(shown: list[str]) -> None:
    """As many samples as requested are shown, after their rows."""
    samples = [text for text in shown if text.startswith("  sample")]
    rows = [text for text in shown if text.startswith("row")]
    assert len(samples) == 30 and len(rows) > 5
    assert [int(row.split(":")[0][4:]) for row in rows] == list(range(len(rows)))


def test_shown_lengths_add_up(shown: list[str]) -> None:
    """The lengths of the samples and the padding of a row add up to its length."""
    lengths: list[int] = []
    for text in shown:
        if text.startswith("row"):
            numbers = [int(number) for number in re.findall(r"\d+", text)][1:]
            assert sum(numbers[:-1]) == numbers[-1] == 64
            lengths = numbers[:-2]
            continue
        number, tokens = (
            int(re.search(pattern, text)[1]) for pattern in (r"sample (\d+)", r"(\d+) tokens")
        )
        a, b = (_MASKED.sub(r"\2", segment).split() for segment in segments_of(text))
        assert lengths[number - 1] == tokens == len(a) + len(b) + 3


def test_shown_labels_match_corpus(
    shown: list[str], tiny_corpus: Path, tiny_tokenizer: Path
) -> None:
    """Labels are the text of the corpus, and masks hide it."""
    corpus, backend = Corpus.open(tiny_corpus), load_tokenizer(tiny_tokenizer).backend
    documents = []
    for number in range(corpus.num_documents):
        ids = [int(index) for sentence in corpus.document(number) for index in sentence]
        documents.append(" ".join(backend.id_to_token(index) for index in ids))
    hidden = []
    for text in shown:
        if text.startswith("row"):
            continue
        a, b = (_MASKED.sub(r"\2", segment) for segment in segments_of(text))
        assert all(any(part in document for document in documents) for part in (a, b))
        together = any(f"{a} {b}" in document for document in documents)
        assert together == ("B follows A" in text)
        masked = _MASKED.findall(text)
        assert f" {len(masked)} of them to predict" in text
        hidden += masked
    assert {label for _, label in hidden} <= set(WORDS)
    share = sum(shown == "[MASK]" for shown, _ in hidden) / len(hidden)
    assert len(hidden) > 100 and 0.6 < share < 0.95


def test_shown_lines_fit_terminal(shown: list[str]) -> None:
    """Lines fit a terminal."""
    assert max(len(line) for text in shown for line in text.splitlines()) <= 100


def test_shown_samples_refuse_other_tokenizer(tiny_corpus: Path, tmp_path: Path) -> None:
    """A tokenizer that did not make the corpus is refused."""
    from data_prep.tokenizers.folder import save_tokenizer
    from data_prep.tokenizers.wordpiece import SPECIAL_TOKENS, bert_tokenizer

    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, "other"])}
    save_tokenizer(bert_tokenizer(vocabulary, lowercase=True), tmp_path, "wordpiece")
    with pytest.raises(UserError, match="was made with the tokenizer"):
        list(readable_samples(tiny_corpus, tmp_path, 1, 64))
