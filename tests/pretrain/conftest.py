"""A model of two layers, batches for it, and a process group of one process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

# First, because it chooses the interpreter of Triton before Triton is imported.
from tests.model_fixtures import in_one_process, published_teacher, tiny_shape  # isort: skip

from data_prep.corpus.shards import Corpus
from data_prep.tokenizers.folder import load_tokenizer
from pretrain.config.run import MaskOptions
from pretrain.data.batch import Batch
from pretrain.data.batch_source import BatchSource
from pretrain.distributed import Cluster
from pretrain.model import Bert, BertShape, initialise
from tests.unpacked_rows import rows_with_two

__all__ = ["in_one_process", "published_teacher", "tiny_shape"]  # fixtures

OpenSource = Callable[..., BatchSource]


@pytest.fixture
def tiny_model(tiny_shape: BertShape) -> Bert:
    """Return a model with weights large enough that all outputs differ."""
    model = Bert(tiny_shape)
    initialise(model, seed=5)
    generator = torch.Generator().manual_seed(6)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(scope="session")
def open_source(
    tiny_corpus: Path, tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory
) -> OpenSource:
    """Return a function that opens the tiny corpus; epoch indices are built once a session."""
    cache = tmp_path_factory.mktemp("cache")

    def open_split(split: str = "train", row_tokens: int = 64, **mask: Any) -> BatchSource:
        return BatchSource(
            Corpus.open(tiny_corpus, split),
            load_tokenizer(tiny_tokenizer),
            MaskOptions(**mask),
            seed=1,
            row_tokens=row_tokens,
            cache=cache,
        )

    return open_split


@pytest.fixture(scope="session")
def packed(open_source: OpenSource) -> Batch:
    """Return rows of 64 tokens that hold several samples each, and some padding."""
    source = open_source()
    rows = np.arange(source.epoch_index(0).num_rows)
    batch = source.rows(rows[rows_with_two(source.rows(rows, len(rows))).numpy()][:6], 6)
    assert len(batch.nsp_targets[0]) >= 12 and (batch.sample_ids == 0).any()
    return batch


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Return a process group of one process."""
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    cluster = Cluster.join()
    yield cluster
    cluster.leave()
