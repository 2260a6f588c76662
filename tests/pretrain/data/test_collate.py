"""Collation: micro-batches whose lists, boundaries and counts agree with their tokens."""

import numpy as np
import pytest
import torch

from pretrain.data.batch import Batch
from tests.pretrain.conftest import OpenSource

T, BATCH = 64, 8
PAD, CLS = 0, 2


def restored(batch: Batch) -> torch.Tensor:
    """Return the ids before masking, [N]."""
    return batch.input_ids.scatter(0, *batch.mlm_targets)


def lengths_of(batch: Batch) -> list[int]:
    """Return the tokens of each sample, counted one by one."""
    rows = batch.sample_ids.view(-1, batch.row_tokens).tolist()
    return [row.count(number) for row in rows for number in set(row) - {0}]


def test_counts_agree_with_tensors(open_source: OpenSource) -> None:
    """The counts agree with the tensors, and positions are ascending."""
    for batch in open_source().step(1, BATCH, 0, 1, 4):
        (masked, _), (cls_positions, _) = batch.mlm_targets, batch.nsp_targets
        assert batch.counts == {
            "masked": len(masked),
            "samples": int((restored(batch) == CLS).sum()),
            "tokens": int((batch.input_ids != PAD).sum()),
            "squares": sum(length**2 for length in lengths_of(batch)),
        }
        assert masked.tolist() == sorted(set(masked.tolist()))
        assert cls_positions.tolist() == (restored(batch) == CLS).nonzero().flatten().tolist()


def test_cu_seqlens_separate_samples_and_padding(open_source: OpenSource) -> None:
    """`cu_seqlens` separates samples and padding in their order, then repeats the end."""
    source = open_source()
    numbers = np.arange(source.epoch_index(0).num_rows)
    batch = source.rows(numbers, len(numbers) + 2)  # two blank rows at the end
    # Within a row a sample's number changes exactly where the sample does.
    rows = torch.arange(len(batch.input_ids)) // T
    owners = torch.stack([rows, batch.sample_ids])
    changes = (owners[:, 1:] != owners[:, :-1]).any(0).nonzero().flatten() + 1
    expected = [0, *changes.tolist(), len(batch.input_ids)]
    cu_seqlens = batch.cu_seqlens.tolist()
    assert cu_seqlens[: len(expected)] == expected
    assert set(cu_seqlens[len(expected) - 1 :]) == {len(batch.input_ids)}, "the rest is empty"
    assert batch.cu_seqlens.dtype == torch.int32
    assert (batch.cu_seqlens.diff() <= batch.row_tokens).all()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_padded_lists_have_few_lengths(open_source: OpenSource, bidirectional: bool) -> None:
    """Padded lists have few lengths, though the counts differ."""
    source = open_source(bidirectional=bidirectional)
    shapes, counts = set(), set()
    for step in range(source.epoch_index(0).num_rows // BATCH):
        for batch in source.step(step, BATCH, 0, 1, 4):
            lists = (batch.cu_seqlens, batch.masked_positions, batch.cls_positions)
            shapes.add(tuple(len(each) for each in lists))
            counts.add(tuple(batch.counts.values()))
    assert len(counts) > 16 and len(shapes) <= 6


def test_reversed_rows_have_same_layout(open_source: OpenSource) -> None:
    """The reversed half of a batch has the labels, samples and boundaries of the other half."""
    for batch in open_source(bidirectional=True).step(0, BATCH, 0, 1, 4):
        size, half = len(batch.input_ids) // 2, len(batch.masked_positions) // 2
        assert torch.equal(batch.mlm_labels[:half], batch.mlm_labels[half:])
        assert torch.equal(batch.sample_ids[:size], batch.sample_ids[size:])
        ends = batch.cu_seqlens.unique()
        assert torch.equal(ends[ends <= size] + size, ends[ends >= size])


def test_stack_holds_one_tensor_per_field(open_source: OpenSource) -> None:
    """A stack holds one tensor a field, and its micro-batches are views, added fields included."""
    stack = open_source().stack(0, BATCH, 0, 1, 2)
    assert {len(tensor) for tensor in stack.tensors.values()} == {4}
    added = torch.arange(4.0)[:, None]
    for index, batch in enumerate(stack.with_tensors(cached_rest=added).unstack()):
        assert batch.input_ids.data_ptr() == stack.tensors["input_ids"][index].data_ptr()
        assert batch.counts == stack.counts[index] and batch.row_tokens == T
        assert batch.cached_rest is not None and batch.cached_rest.tolist() == [index]
