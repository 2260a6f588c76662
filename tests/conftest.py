"""A corpus and its tokenizer, small enough for every test and large enough to train on."""

from pathlib import Path

import pytest

from data_prep.tokenizers.folder import load_tokenizer
from tests.synthetic_corpora import prose_shards, write_corpus, write_tokenizer


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a WordPiece tokenizer with 201 ids."""
    folder = tmp_path_factory.mktemp("tiny") / "tokenizer"
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Path:
    """Return a corpus folder: 2 train shards with 60 documents, 12 documents held out."""
    folder = tmp_path_factory.mktemp("tiny") / "corpus"
    tokenizer = load_tokenizer(tiny_tokenizer)
    write_corpus(
        folder,
        {"train": prose_shards("train", (31, 29)), "validation": prose_shards("validation", (12,))},
        tokenizer=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
    )
    return folder
