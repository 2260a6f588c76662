"""Reading teacher caches: what is read is what was written, or it is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from data_prep.errors import UserError
from data_prep.manifest import MANIFEST
from pretrain.data.batch import IGNORE_INDEX, Batch
from pretrain.data.batch_source import BatchSource
from pretrain.distil.teacher_cache.reader import TeacherCacheReader
from pretrain.distil.teacher_cache.targets import cached_soft_target_sum
from tests.pretrain.conftest import OpenSource
from tests.pretrain.distil.soft_target_reference import soft_target_sum
from tests.pretrain.distil.teacher_cache.conftest import (
    ROWS,
    TEMPERATURE,
    ComputeLogits,
    WriteCache,
)

Key = Callable[[BatchSource], dict[str, Any]]


def loss_from(
    reader: TeacherCacheReader, batch: Batch, rows: np.ndarray, logits_MV: torch.Tensor
) -> float:
    targets = reader.targets(batch, rows)
    kind = reader.options.kind
    return cached_soft_target_sum(logits_MV, targets, kind, reader.temperature).item()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_full_cache_gives_online_loss(
    write_teacher_cache: WriteCache,
    open_source: OpenSource,
    key_of_source: Key,
    compute_logits: ComputeLogits,
    bidirectional: bool,
) -> None:
    """A cache of the whole vocabulary gives the loss of the teacher's logits."""
    mask = {"bidirectional": bidirectional}
    folder = write_teacher_cache(mask=mask)
    source = open_source(**mask)
    reader = TeacherCacheReader.open(folder, key_of_source(source), ROWS)
    # Batches of other sizes than those of the writer, over the edge of a shard, one with blanks.
    for first, end, size in ((0, 3, 3), (5, 18, 13), (19, 22, 5)):
        rows = np.arange(first, end)
        batch = source.rows(rows, size)
        teacher_MV = compute_logits(batch)
        student_MV = teacher_MV.flip(1) * 0.5
        is_masked = batch.mlm_labels != IGNORE_INDEX
        online = soft_target_sum(student_MV[is_masked], teacher_MV[is_masked], TEMPERATURE)
        # All tokens in fp32: what is left is the rounding of sums over 201 tokens.
        assert loss_from(reader, batch, rows, student_MV) == pytest.approx(online.item(), rel=1e-5)


def test_sampled_cache_within_sampling_error(
    write_teacher_cache: WriteCache,
    open_source: OpenSource,
    key_of_source: Key,
    compute_logits: ComputeLogits,
) -> None:
    """A sampled cache gives the loss of the teacher's logits within its sampling error."""
    folder = write_teacher_cache(kind="sampled", count=64, number="float16")
    source = open_source()
    reader = TeacherCacheReader.open(folder, key_of_source(source), ROWS)
    rows = np.arange(ROWS)
    batch = source.rows(rows, ROWS)
    teacher_MV = compute_logits(batch)
    student_MV = teacher_MV.flip(1) * 0.5
    is_masked = batch.mlm_labels != IGNORE_INDEX
    online = soft_target_sum(student_MV[is_masked], teacher_MV[is_masked], TEMPERATURE).item()
    # A draw costs T² (-log q) on average, with this variance over the vocabulary:
    p = (teacher_MV / TEMPERATURE).softmax(-1)
    cost = -(TEMPERATURE**2) * (student_MV / TEMPERATURE).log_softmax(-1)
    variance = (p * cost**2).sum(-1) - (p * cost).sum(-1) ** 2
    error = (variance[is_masked].sum() / 64).sqrt().item()
    assert abs(loss_from(reader, batch, rows, student_MV) - online) < 4 * error
    assert error < 0.05 * online  # or the test would be void


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"teacher": "b" * 64}, "teacher is 'aaaa"),
        ({"corpus": "another"}, "corpus is '.*' there and 'another' here"),
        ({"seed": 2}, "seed is 1 there and 2 here"),
        ({"temperature": 1.0}, "temperature is 2.0 there and 1.0 here"),
        ({"row_tokens": 128}, "row_tokens is 64 there and 128 here"),
        ({"mask": {"rate": 0.2}}, "mask.rate is 0.15 there and 0.2 here"),
        ({"samples": {"short_share": 0.5}}, "samples.short_share is 0.1 there and 0.5 here"),
        ({"vocab_size": 7}, "vocab_size is 201 there and 7 here"),
    ],
)
def test_mismatched_cache_refused_by_name(
    write_teacher_cache: WriteCache,
    open_source: OpenSource,
    key_of_source: Key,
    change: dict[str, Any],
    difference: str,
) -> None:
    """A cache with another key is refused, and the message names the difference."""
    folder = write_teacher_cache()
    key = key_of_source(open_source())
    for name, value in change.items():
        key[name] = key[name] | value if isinstance(value, dict) else value
    with pytest.raises(UserError, match=f"was made for something else .{difference}"):
        TeacherCacheReader.open(folder, key, ROWS)


@pytest.mark.parametrize("name", ["00001.records.bin", "00001.offsets.bin"])
def test_flipped_bit_refused(
    write_teacher_cache: WriteCache, open_source: OpenSource, key_of_source: Key, name: str
) -> None:
    """A flipped bit in a shard is refused."""
    folder = write_teacher_cache()
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(UserError, match=f"is damaged .the contents of {name} have changed"):
        TeacherCacheReader.open(folder, key_of_source(open_source()), ROWS)


def test_incomplete_or_short_cache_refused(
    write_teacher_cache: WriteCache, open_source: OpenSource, key_of_source: Key
) -> None:
    """A cache that is incomplete or has too few rows is refused."""
    folder, key = write_teacher_cache(), key_of_source(open_source())
    with pytest.raises(UserError, match="holds 22 rows, but the run reads 23"):
        TeacherCacheReader.open(folder, key, ROWS + 1)
    (folder / "00002.records.bin").unlink()
    with pytest.raises(UserError, match=r"is damaged .00002.records.bin is missing"):
        TeacherCacheReader.open(folder, key, ROWS, contents=False)
    (folder / MANIFEST).unlink()
    with pytest.raises(UserError, match=r"has no manifest.json: write it, or resume"):
        TeacherCacheReader.open(folder, key, ROWS)


def test_other_masks_detected(
    write_teacher_cache: WriteCache, open_source: OpenSource, key_of_source: Key
) -> None:
    """The key has the masking options; a change of its code shows only in the positions."""
    folder, source = write_teacher_cache(), open_source()
    reader = TeacherCacheReader.open(folder, key_of_source(source), ROWS)
    with pytest.raises(UserError, match="Rows 3 to 5 have other masks"):
        reader.targets(source.rows(np.arange(6, 9), 3), np.arange(3, 6))
