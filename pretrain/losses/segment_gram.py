"""Gram matrices of the samples of packed rows, in shapes that do not depend on the samples.

Σ_j (x_i · y_j) y_j over all positions j of the sample of i is x_i' G with the sample's Gram matrix
G = Σ_j y_j y_j'. A row holds samples of any number and length, so it is cut into blocks of fixed
size. Positions of one block are compared pair by pair. A block shares at most one sample with the
blocks before it, its head, and at most one with those after it, its tail. Both give a Gram matrix;
a block adds the tails before it that continue as its head, and the heads after it that continue its
tail. This is the chunkwise form of linear attention (arXiv 2312.06635), in both directions and per
sample.

Shapes: R rows of T positions, A heads, n blocks of c positions, e width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

BLOCK = 64  # positions; about a head's width, so that both ways of comparing cost the same


class GramBlocks(NamedTuple):
    """Rows cut into blocks of positions."""

    ids_Rnc: torch.Tensor  # sample ids
    inverse_length_R1nc1: torch.Tensor  # 1 / length of the position's sample; 0 for padding
    is_head_R1nc1: torch.Tensor  # belongs to the sample that started in an earlier block
    is_tail_R1nc1: torch.Tensor  # belongs to the sample that continues in the next block
    is_linked_R1nn: torch.Tensor  # the first block's tail continues in the second, a later one

    @classmethod
    def of(cls, ids_RT: torch.Tensor) -> "GramBlocks":
        """Cut rows into blocks; each sample is contiguous, and 0 is padding."""
        ids_Rnc = _cut(ids_RT, 0)
        first_Rn, last_Rn = ids_Rnc[:, :, 0], ids_Rnc[:, :, -1]
        no_sample = torch.full_like(first_Rn[:, :1], -1)
        before_Rn = torch.cat([no_sample, last_Rn[:, :-1]], 1)
        after_Rn = torch.cat([first_Rn[:, 1:], no_sample], 1)
        return cls(
            ids_Rnc,
            _cut(_inverse_lengths(ids_RT), 0.0)[:, None, :, :, None],
            (ids_Rnc == before_Rn[:, :, None])[:, None, :, :, None],
            (ids_Rnc == after_Rn[:, :, None])[:, None, :, :, None],
            (last_Rn[:, :, None] == first_Rn[:, None, :]).triu(1)[:, None],
        )

    def cut(self, x_RATd: torch.Tensor, width: int) -> torch.Tensor:
        """Return [R, A, n, c, width], padded with zeros."""
        rows, heads, positions, own_width = x_RATd.shape
        blocks, size = self.ids_Rnc.shape[1:]
        x_RATd = F.pad(x_RATd, (0, width - own_width, 0, blocks * size - positions))
        return x_RATd.view(rows, heads, blocks, size, width)

    def products(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return Σ_j (x_i · y_j) y_j over the positions j of the sample of i, [R, A, n, c, e].

        Padding must be 0 in x and y.
        """
        is_together = self.ids_Rnc[:, None, :, :, None] == self.ids_Rnc[:, None, :, None, :]
        total = ((x @ y.mT) * is_together) @ y
        if self.ids_Rnc.shape[1] == 1:
            return total
        after = _linked_grams(self.is_linked_R1nn, y * self.is_head_R1nc1)
        total += (x @ after) * self.is_tail_R1nc1
        before = _linked_grams(self.is_linked_R1nn.mT, y * self.is_tail_R1nc1)
        return total + (x @ before) * self.is_head_R1nc1


def _linked_grams(is_linked_R1nn: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return for each block the sum of the Gram matrices of the blocks it is linked with."""
    grams = y.mT @ y
    return (is_linked_R1nn.to(y.dtype) @ grams.flatten(-2)).view(grams.shape)


def _cut(x_RT: torch.Tensor, filling: float) -> torch.Tensor:
    """Return [R, n, c]; the last block is padded with the filling."""
    rows, positions = x_RT.shape
    size = min(BLOCK, positions)
    blocks = -(-positions // size)
    return F.pad(x_RT, (0, blocks * size - positions), value=filling).view(rows, blocks, size)


def _inverse_lengths(ids_RT: torch.Tensor) -> torch.Tensor:
    """Return 1 / length of the sample of each position, and 0 for padding."""
    index_RT = ids_RT.long()  # at most T: a sample has at least one position
    counts = torch.zeros(len(ids_RT), ids_RT.shape[1] + 1, dtype=torch.int64, device=ids_RT.device)
    counts.scatter_add_(1, index_RT, torch.ones_like(index_RT))
    return torch.where(ids_RT > 0, 1.0 / counts.gather(1, index_RT), 0.0)
