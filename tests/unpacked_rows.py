"""Packed rows unpacked: each sample in a row of its own."""

import dataclasses

import torch

from pretrain.data.batch import Batch

T = 64  # tokens of a row
TABLES = ("input_ids", "token_types", "positions", "sample_ids")


def rows_with_two(batch: Batch) -> torch.Tensor:
    """Return which rows hold two samples or more, [rows]."""
    return batch.sample_ids.view(-1, T).amax(dim=1) >= 2


def unpack(batch: Batch) -> tuple[Batch, torch.Tensor]:
    """Return each sample in a row of its own, and the packed index of each token, -1 in padding."""
    (cls_positions, nsp_labels), (masked, labels) = batch.nsp_targets, batch.mlm_targets
    origin = torch.full((len(cls_positions), T), -1)
    owners = batch.sample_ids.tolist()
    for row, first in enumerate(cls_positions.tolist()):
        stop = first
        while stop < (first // T + 1) * T and owners[stop] == owners[first]:
            stop += 1
        origin[row, : stop - first] = torch.arange(first, stop)
    origin = origin.flatten()
    held = origin >= 0
    tables = {name: torch.where(held, getattr(batch, name)[origin], 0) for name in TABLES}
    lengths = held.view(-1, T).sum(1)
    starts = torch.arange(len(cls_positions)) * T
    alone = dataclasses.replace(
        batch,
        **{**tables, "sample_ids": held.int()},
        cu_seqlens=torch.cat(
            [torch.stack([starts, starts + lengths], 1).flatten(), starts[-1:] + T]
        ),
        masked_positions=torch.isin(origin, masked).nonzero().flatten(),
        mlm_labels=labels,
        cls_positions=starts,
        nsp_labels=nsp_labels,
    )
    return alone, origin
