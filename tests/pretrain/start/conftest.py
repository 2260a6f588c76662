"""Tokenizers of a start and of another vocabulary."""

from pathlib import Path

import pytest

from data_prep.tokenizers.folder import LoadedTokenizer, load_tokenizer, save_tokenizer
from data_prep.tokenizers.roles import SPECIAL_TOKENS
from data_prep.tokenizers.wordpiece import bert_tokenizer
from tests.synthetic_corpora import WORDS


@pytest.fixture
def tokenizer(tiny_tokenizer: Path) -> LoadedTokenizer:
    return load_tokenizer(tiny_tokenizer)


@pytest.fixture
def other_tokenizer(tmp_path: Path) -> LoadedTokenizer:
    """Return a tokenizer of half the words in another order, and a new one made of two."""
    tokens = ["new", *SPECIAL_TOKENS, WORDS[0] + WORDS[1], *WORDS[100:], WORDS[1], "##a"]
    backend = bert_tokenizer({token: n for n, token in enumerate(tokens)}, lowercase=True)
    save_tokenizer(backend, tmp_path / "other", "wordpiece")
    return load_tokenizer(tmp_path / "other")
