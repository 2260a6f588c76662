"""Gram matrices of samples, against sums over the pairs of positions of a sample."""

import pytest
import torch

from pretrain.losses.segment_gram import BLOCK, GramBlocks
from tests.pretrain.losses.attention_reference import DEVICE, draw, ids_of

HEADS, WIDTH = 2, 3
LENGTHS = {
    "one block, not full": [20, 17],
    "ends where a block ends": [BLOCK, BLOCK, BLOCK],
    "across every boundary": [BLOCK // 2, BLOCK, BLOCK, 5],
    "over many blocks": [3, 3 * BLOCK + 7, 1],
    "one position into the next": [BLOCK + 1, BLOCK - 1, 2 * BLOCK + 1],
    "nothing": [],
}


def make_rows(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids, x and y of two rows; the first has padding, the second is one sample."""
    positions = max(sum(lengths) + 3, 1)
    ids_RT = ids_of(positions, [lengths, [positions]]).view(2, positions)
    shape = (2, HEADS, positions, WIDTH)
    is_token = (ids_RT > 0)[:, None, :, None]
    x, y = (draw(*shape, seed=seed) * is_token for seed in (0, 1))
    return ids_RT, x, y


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_products_match_pairwise_sums(lengths: list[int]) -> None:
    """Products by blocks are the sums over pairs of positions of a sample."""
    ids_RT, x, y = make_rows(lengths)
    blocks = GramBlocks.of(ids_RT)
    found = blocks.products(*(blocks.cut(values, WIDTH) for values in (x, y)))
    wide_x, wide_y = x.double(), y.double()
    is_together = (ids_RT[:, None, :, None] == ids_RT[:, None, None, :]).double()
    wanted = (wide_x @ wide_y.mT * is_together) @ wide_y
    positions = ids_RT.shape[1]
    found = found.flatten(2, 3)
    assert not found[:, :, positions:].any()
    # Sums of 200 products of numbers up to 4.
    torch.testing.assert_close(found[:, :, :positions].double(), wanted, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_inverse_lengths_of_samples(lengths: list[int]) -> None:
    """Each position has the inverse length of its sample, and padding 0."""
    ids_RT = make_rows(lengths)[0]
    inverse_RT = GramBlocks.of(ids_RT).inverse_length_R1nc1.flatten(1)[:, : ids_RT.shape[1]]
    for sample, length in enumerate(lengths, 1):
        owned = ids_RT[0] == sample
        assert torch.equal(inverse_RT[0, owned], torch.full((length,), 1 / length, device=DEVICE))
    assert not inverse_RT[ids_RT == 0].any()


def test_narrow_heads_padded_with_zeros() -> None:
    """A head narrower than the given width is padded with zeros."""
    blocks = GramBlocks.of(ids_of(BLOCK + 1, [[5]]).view(1, -1))
    cut = blocks.cut(torch.ones(1, HEADS, BLOCK + 1, 2, device=DEVICE), 5)
    assert cut.shape == (1, HEADS, 2, BLOCK, 5)
    assert cut.sum() == HEADS * (BLOCK + 1) * 2
    assert not cut[..., 2:].any() and not cut[:, :, 1, 1:].any()
