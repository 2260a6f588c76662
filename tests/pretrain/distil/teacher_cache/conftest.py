"""A teacher of two layers, rows, and caches of its soft targets."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data_prep.corpus.shards import Corpus
from pretrain.data.batch import Batch
from pretrain.data.batch_source import BatchSource
from pretrain.distil.teacher_cache.key import TeacherCacheOptions, cache_key
from pretrain.distil.teacher_cache.writer import TeacherCacheWriter
from pretrain.model import Bert
from tests.pretrain.conftest import OpenSource

ROWS, SHARD_ROWS, TEMPERATURE = 22, 8, 2.0
ComputeLogits = Callable[[Batch], torch.Tensor]
WriteCache = Callable[..., Path]


@pytest.fixture
def compute_logits(tiny_model: Bert) -> ComputeLogits:
    """Return the function that computes a teacher's logits at masked tokens."""
    tiny_model.eval()

    def compute(batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            return tiny_model(batch).mlm_logits_MV

    return compute


@pytest.fixture
def key_of_source(tiny_corpus: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that computes the cache key of a source."""

    def key(source: BatchSource, teacher: str = "a" * 64) -> dict[str, Any]:
        return cache_key(source, Corpus.open(tiny_corpus), teacher, TEMPERATURE)

    return key


@pytest.fixture
def make_writer(
    tmp_path: Path, open_source: OpenSource, key_of_source: Callable[..., dict[str, Any]]
) -> Callable[..., TeacherCacheWriter]:
    """Return a function that makes a writer of 22 rows in three shards."""

    def make(
        folder: str = "cache", mask: dict[str, Any] | None = None, **options: Any
    ) -> TeacherCacheWriter:
        source = open_source(**(mask or {}))
        options = {"kind": "top_k", "count": 201, "number": "float32"} | options
        return TeacherCacheWriter(
            tmp_path / folder,
            key_of_source(source),
            TeacherCacheOptions(**options),
            source,
            ROWS,
            SHARD_ROWS,
        )

    return make


@pytest.fixture
def write_teacher_cache(
    tmp_path: Path, make_writer: Callable[..., TeacherCacheWriter], compute_logits: ComputeLogits
) -> WriteCache:
    """Return a function that writes a whole cache, four rows at a time."""

    def write(folder: str = "cache", **options: Any) -> Path:
        writer = make_writer(folder, **options)
        writer.begin()
        writer.write(compute_logits, 4)
        writer.finish()
        return tmp_path / folder

    return write
