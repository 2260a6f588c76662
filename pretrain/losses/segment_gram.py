"""Gram matrices of the samples of packed rows, in shapes that do not depend on the samples.

Σ_j (x_i · y_j) y_j over all places j of the sample of i is x_i' G with the sample's Gram matrix
G = Σ_j y_j y_j'. But a row holds samples of any number and length. So it is cut into chunks. Places
of one chunk are compared one by one. A chunk shares at most one sample with the chunks before it,
its head, and at most one with those after it, its tail; both give a Gram matrix, and a chunk adds
up the tails before it that are its head, and the heads after it that are its tail. This is the
chunked form of linear attention (arXiv 2312.06635), in both directions and by samples.

Shapes: R rows of T places, A heads, n chunks of c places, e width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

CHUNK = 64  # places; about a head's width, so that both ways of comparing cost the same


class Chunks(NamedTuple):
    """Rows cut into chunks of places."""

    ids_Rnc: torch.Tensor  # the samples' numbers
    share_R1nc1: torch.Tensor  # 1 / length of the place's sample; 0 for padding
    is_head_R1nc1: torch.Tensor  # of the sample that comes from the chunk before
    is_tail_R1nc1: torch.Tensor  # of the sample that goes on in the next chunk
    is_linked_R1nn: torch.Tensor  # the tail of the first chunk goes on in the second, a later one

    @classmethod
    def of(cls, ids_RT: torch.Tensor) -> "Chunks":
        """Cut rows; each sample lies in places next to each other, and 0 is padding."""
        ids_Rnc = _cut(ids_RT, 0)
        firsts_Rn, lasts_Rn = ids_Rnc[:, :, 0], ids_Rnc[:, :, -1]
        nobody = torch.full_like(firsts_Rn[:, :1], -1)
        before_Rn = torch.cat([nobody, lasts_Rn[:, :-1]], 1)
        after_Rn = torch.cat([firsts_Rn[:, 1:], nobody], 1)
        return cls(
            ids_Rnc,
            _cut(_shares(ids_RT), 0.0)[:, None, :, :, None],
            (ids_Rnc == before_Rn[:, :, None])[:, None, :, :, None],
            (ids_Rnc == after_Rn[:, :, None])[:, None, :, :, None],
            (lasts_Rn[:, :, None] == firsts_Rn[:, None, :]).triu(1)[:, None],
        )

    def cut(self, x_RATd: torch.Tensor, width: int) -> torch.Tensor:
        """Return [R, A, n, c, width], filled up with zeros."""
        rows, heads, places, own = x_RATd.shape
        chunks, chunk = self.ids_Rnc.shape[1:]
        x_RATd = F.pad(x_RATd, (0, width - own, 0, chunks * chunk - places))
        return x_RATd.view(rows, heads, chunks, chunk, width)

    def products(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return Σ_j (x_i · y_j) y_j over the places j of the sample of i, [R, A, n, c, e].

        Padding has to be 0 in x and y.
        """
        is_together = self.ids_Rnc[:, None, :, :, None] == self.ids_Rnc[:, None, :, None, :]
        total = ((x @ y.mT) * is_together) @ y
        if self.ids_Rnc.shape[1] == 1:
            return total
        after = _sums(self.is_linked_R1nn, y * self.is_head_R1nc1)
        total += (x @ after) * self.is_tail_R1nc1
        before = _sums(self.is_linked_R1nn.mT, y * self.is_tail_R1nc1)
        return total + (x @ before) * self.is_head_R1nc1


def _sums(is_linked_R1nn: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return for each chunk the sum of the Gram matrices of the chunks it is linked with."""
    grams = y.mT @ y
    return (is_linked_R1nn.to(y.dtype) @ grams.flatten(-2)).view(grams.shape)


def _cut(x_RT: torch.Tensor, filling: float) -> torch.Tensor:
    """Return [R, n, c]; the last chunk is filled up."""
    rows, places = x_RT.shape
    chunk = min(CHUNK, places)
    chunks = -(-places // chunk)
    return F.pad(x_RT, (0, chunks * chunk - places), value=filling).view(rows, chunks, chunk)


def _shares(ids_RT: torch.Tensor) -> torch.Tensor:
    """Return 1 / length of the sample that each place belongs to, and 0 for padding."""
    index_RT = ids_RT.long()  # no larger than T: a sample has a place at least
    counts = torch.zeros(len(ids_RT), ids_RT.shape[1] + 1, dtype=torch.int64, device=ids_RT.device)
    counts.scatter_add_(1, index_RT, torch.ones_like(index_RT))
    return torch.where(ids_RT > 0, 1.0 / counts.gather(1, index_RT), 0.0)
