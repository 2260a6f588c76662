"""Heads of rows, even_slices, and the precision of matrix products."""

import pytest
import torch

from data_prep.errors import UserError
from pretrain.losses.head_layout import even_slices, exact_products, head_width, heads_of_rows

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_heads_lie_side_by_side_in_the_width() -> None:
    x_ND = torch.arange(2 * 3 * 4, dtype=torch.float32).view(6, 4)
    ids_BT = torch.tensor([[1, 1, 2], [1, 0, 0]])
    found = heads_of_rows(x_ND, 2, ids_BT, slice(0, 2))
    assert found.shape == (2, 2, 3, 2)
    assert found[0, 1, 2].tolist() == x_ND[2, 2:].tolist()
    assert found[1, 0].tolist() == [x_ND[3, :2].tolist(), [0, 0], [0, 0]]


@pytest.mark.parametrize("total, most", [(0, 4), (1, 4), (4, 4), (10, 4), (512, 128), (7, 1)])
def test_even_slices_cover_everything_once_and_evenly(total: int, most: int) -> None:
    found = list(even_slices(total, most))
    assert [i for span in found for i in range(total)[span]] == list(range(total))
    sizes = {span.stop - span.start for span in found}
    assert len(found) == -(-total // most)
    assert not sizes or (max(sizes) <= most and max(sizes) - min(sizes) <= 1)


@pytest.mark.parametrize("heads", [0, -1, 5])
def test_a_wrong_number_of_heads_is_named_with_the_width(heads: int) -> None:
    assert head_width(12, 4, "student") == 3
    with pytest.raises(UserError, match=rf"The student's width 12 cannot be cut into {heads} "):
        head_width(12, heads, "student")


def test_the_precision_of_the_run_comes_back_even_after_an_error() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(ZeroDivisionError), exact_products(CPU):
            assert torch.get_float32_matmul_precision() == "highest"
            raise ZeroDivisionError
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_only_half_precision_on_all_sides_is_multiplied_in_tf32() -> None:
    wide, narrow = torch.ones(1), torch.ones(1, dtype=torch.bfloat16)
    for device, factors, wanted in (
        (GPU, (narrow, narrow), "high"),
        (GPU, (narrow, wide), "highest"),
        (GPU, (), "highest"),
        (CPU, (narrow, narrow), "highest"),
    ):
        with exact_products(device, factors):
            assert torch.get_float32_matmul_precision() == wanted


def test_autocast_leaves_the_products_alone() -> None:
    x = torch.full((2, 2), 1 + 2.0**-12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with exact_products(CPU):
            assert (x @ x).dtype == torch.float32
