"""Fixtures of the tests of tokenizers of others: their folders, as transformers writes them."""

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from data_prep.tokenizers.roles import BERT_NAMES, ROBERTA_NAMES

BERT = {"tokenizer_class": "BertTokenizer", **{f"{r}_token": n for r, n in BERT_NAMES.items()}}
ROBERTA = {
    "tokenizer_class": "RobertaTokenizer",
    **{f"{role}_token": name for role, name in ROBERTA_NAMES.items()},
}
FolderOf = Callable[..., Path]
WORDS = "harbour lantern meadow quarry saddle Harbour Lantern café Café naïve".split()
LETTERS = string.ascii_letters + "éï"
TOKENS = [
    *BERT_NAMES.values(),
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS),
    *".,!'漢字",
    *WORDS,
]
TEXTS = [
    "The lantern of the Harbour. Café Lantern, naïve!",
    "MEADOW meadow Meadow e\u0301 漢字 quarry's",
    "Saddles and saddle  with \t odd\u00a0spaces. Second sentence.",
]


def wordpiece(**changes: Any) -> Tokenizer:
    """Return a tokenizer of BERT's pipeline; `changes` are of its normalizer and its model."""
    prefix = changes.pop("prefix", "##")
    tokens = [prefix + t[2:] if t.startswith("##") else t for t in changes.pop("tokens", TOKENS)]
    longest = changes.pop("longest", 100)
    model = models.WordPiece(
        {token: index for index, token in enumerate(tokens)},
        unk_token="[UNK]",
        continuing_subword_prefix=prefix,
        max_input_chars_per_word=longest,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(**changes)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=prefix)
    tokenizer.add_special_tokens([name for name in BERT_NAMES.values() if name in tokens])
    return tokenizer


def byte_level() -> Tokenizer:
    """Return a small tokenizer as RoBERTa has it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[ROBERTA_NAMES[role] for role in ("cls", "pad", "sep", "unk", "mask")],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


@pytest.fixture
def folder_of(tmp_path: Path) -> FolderOf:
    """Return a function that writes a folder of a tokenizer and further files by name.

    A file is an object to write as JSON, text, or bytes.
    """

    def write(tokenizer: Tokenizer | None = None, **files: Any) -> Path:
        folder = tmp_path / "theirs"
        folder.mkdir(exist_ok=True)
        if tokenizer is not None:
            tokenizer.save(str(folder / "tokenizer.json"))
        for name, content in files.items():
            path = folder / name.replace("__", ".")
            if isinstance(content, str | bytes):
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
            else:
                path.write_text(json.dumps(content))
        return folder

    return write
