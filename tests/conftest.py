"""A corpus and its tokenizer, small enough for every test and whole enough to train on."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

# Without a GPU, Triton's kernels run in its CPU interpreter. Triton takes that decision while it is
# imported, for its own library too, and other packages import it (torch itself only when it is
# needed): hence before all other imports. An answer given from outside stays.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from safetensors.torch import save_file

from data_prep.tokenizers.folder import load_tokenizer
from pretrain.model import Bert, BertShape, initialise
from pretrain.model.hf_conversion import to_hf_config
from pretrain.model.loading import WEIGHTS
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


@pytest.fixture(scope="session")
def tiny_shape(tiny_tokenizer: Path) -> BertShape:
    """Return two layers of width 32 over the tiny vocabulary, without dropout."""
    return BertShape(
        vocab_size=load_tokenizer(tiny_tokenizer).vocab_size,
        layers=2,
        width=32,
        heads=4,
        feed_forward=64,
        positions=64,
        dropout=0.0,
        pad_id=0,
        next_sentence=True,
    )


@pytest.fixture
def published_teacher(tmp_path: Path, tiny_shape: BertShape, tiny_tokenizer: Path) -> Path:
    """Return the folder of a published teacher with random weights."""
    model = Bert(tiny_shape)
    initialise(model, seed=0)
    folder = tmp_path / "teacher"
    folder.mkdir()
    save_file(model.state_dict(), folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps(to_hf_config(tiny_shape)), encoding="utf-8")
    for path in tiny_tokenizer.glob("*.json"):
        shutil.copyfile(path, folder / path.name)
    return folder
