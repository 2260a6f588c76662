"""The tiles of Triton programs, for every width a model may have."""

from pretrain.kernels.triton.tile import STRIPE, Tile, tile_of

WIDTHS = range(1, 8193)


def is_power_of_2(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


def test_tile_holds_whole_rows() -> None:
    """A tile holds whole rows, and a stripe whole tiles, at every width."""
    for width in WIDTHS:
        tile = tile_of(width)
        assert width <= tile.columns < 2 * width
        assert STRIPE % tile.rows == 0
        assert all(map(is_power_of_2, tile)) and tile.warps <= 32


def test_tile_with_most_columns() -> None:
    """`most_columns` limits the columns of a tile."""
    for width in WIDTHS:
        assert tile_of(width, most_columns=1024).columns == min(tile_of(width).columns, 1024)


def test_tile_of_usual_widths() -> None:
    """At usual widths each thread has 8 elements."""
    assert tile_of(128) == Tile(rows=16, columns=128, warps=8)
    assert tile_of(768) == tile_of(1024) == Tile(rows=2, columns=1024, warps=8)
    assert tile_of(4096) == Tile(rows=1, columns=4096, warps=16)
