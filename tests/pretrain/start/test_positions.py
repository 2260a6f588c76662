"""Position embeddings of a start in a model with more or fewer positions."""

import numpy as np
import torch

from pretrain.start.positions import resize_positions


def test_positions_interpolate_as_numpy() -> None:
    """More positions lie on straight lines between the old ones, the ends stay."""
    old = torch.randn(8, 3, generator=torch.Generator().manual_seed(2))
    found = resize_positions(old, 21, trained=8)
    at = np.linspace(0, 7, 21)
    expected = np.stack([np.interp(at, np.arange(8), column) for column in old.T.numpy()], axis=1)
    # Weights of the interpolation are computed in fp32, on numbers of about 1.
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert torch.equal(found[0], old[0]) and torch.allclose(found[-1], old[-1])


def test_untrained_positions_are_not_spread() -> None:
    """Rows that no training reached take no part in the interpolation."""
    old = torch.ones(8, 3)
    old[4:] = 1e6
    assert torch.equal(resize_positions(old, 16, trained=4), torch.ones(16, 3))


def test_fewer_positions_are_the_first() -> None:
    """Positions are cut from the end, and as many stay as they are."""
    old = torch.randn(8, 3, generator=torch.Generator().manual_seed(3))
    assert torch.equal(resize_positions(old, 5, trained=2), old[:5])
    assert torch.equal(resize_positions(old, 8, trained=2), old)
