"""Fixtures of models, for the conftest of each folder whose tests need torch.

They are imported there instead of defined in `tests/conftest.py`, so that `tests/data_prep` can be
collected without torch.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

# Without a GPU, Triton's kernels run in its CPU interpreter. Triton reads the variable while it is
# imported, for its own library too, and other packages import it (torch itself only when it is
# needed): hence before all other imports. A value set from outside is kept.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import numpy as np
from safetensors.torch import save_file

from data_prep.tokenizers.folder import load_tokenizer
from pretrain.data.batch import Batch
from pretrain.model import Bert, BertShape, initialise
from pretrain.model.dropout_rng import dropout_keys
from pretrain.model.hf_conversion import to_hf_config
from pretrain.model.loading import WEIGHTS


@pytest.fixture(autouse=True)
def in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the fresh process that checks every export: it costs some seconds each time.

    tests/pretrain/export/test_fresh_process.py has it, and so do the stories.
    """
    monkeypatch.setattr(
        "pretrain.export.huggingface.check_in_fresh_process", lambda folder, name: None
    )


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


def keys_for(batch: Batch, layers: int, step: int = 0) -> torch.Tensor:
    """Return the dropout keys of a batch whose rows are numbered from 0."""
    (keys,) = dropout_keys(0, step, np.arange(batch.rows)[None], layers, batch.input_ids.device)
    return keys
