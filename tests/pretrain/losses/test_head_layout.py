"""Heads of rows, even slices, and the precision of matrix products."""

import pytest
import torch

from data_prep.errors import UserError
from pretrain.losses.head_layout import even_slices, exact_products, head_width, heads_of_rows

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_heads_of_rows_layout() -> None:
    """Heads are consecutive slices of the width, and padding is 0."""
    x_ND = torch.arange(2 * 3 * 4, dtype=torch.float32).view(6, 4)
    ids_BT = torch.tensor([[1, 1, 2], [1, 0, 0]])
    found = heads_of_rows(x_ND, 2, ids_BT, slice(0, 2))
    assert found.shape == (2, 2, 3, 2)
    assert found[0, 1, 2].tolist() == x_ND[2, 2:].tolist()
    assert found[1, 0].tolist() == [x_ND[3, :2].tolist(), [0, 0], [0, 0]]


@pytest.mark.parametrize("total, most", [(0, 4), (1, 4), (4, 4), (10, 4), (512, 128), (7, 1)])
def test_even_slices_cover_range_once(total: int, most: int) -> None:
    """Slices cover the range once, in the fewest pieces of even sizes."""
    found = list(even_slices(total, most))
    assert [i for span in found for i in range(total)[span]] == list(range(total))
    sizes = {span.stop - span.start for span in found}
    assert len(found) == -(-total // most)
    assert not sizes or (max(sizes) <= most and max(sizes) - min(sizes) <= 1)


@pytest.mark.parametrize("heads", [0, -1, 5])
def test_head_width_refuses_wrong_heads(heads: int) -> None:
    """Heads that do not divide the width are refused, and the message has both."""
    assert head_width(12, 4, "student") == 3
    with pytest.raises(UserError, match=rf"The student's width 12 cannot be cut into {heads} "):
        head_width(12, heads, "student")


def test_matmul_precision_restored_after_error() -> None:
    """The run's matmul precision is restored, even after an error."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(ZeroDivisionError), exact_products(CPU):
            assert torch.get_float32_matmul_precision() == "highest"
            raise ZeroDivisionError
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_tf32_only_for_16_bit_factors() -> None:
    """TF32 is used on a GPU where all factors have 16 bits, and nowhere else."""
    wide, narrow = torch.ones(1), torch.ones(1, dtype=torch.bfloat16)
    for device, factors, wanted in (
        (GPU, (narrow, narrow), "high"),
        (GPU, (narrow, wide), "highest"),
        (GPU, (), "highest"),
        (CPU, (narrow, narrow), "highest"),
    ):
        with exact_products(device, factors):
            assert torch.get_float32_matmul_precision() == wanted


def test_autocast_disabled_in_exact_products() -> None:
    """Autocast does not change the dtype of exact products."""
    x = torch.full((2, 2), 1 + 2.0**-12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with exact_products(CPU):
            assert (x @ x).dtype == torch.float32
