"""Settings of training that do not fit the machine are refused."""

import pytest
import torch

from data_prep.errors import UserError
from launch.downstream.training import rows_of_device


@pytest.mark.parametrize(("rows", "nearest"), [(32, 33), (2, 3), (1, 3), (31, 30)])
def test_uneven_batches_are_refused(
    monkeypatch: pytest.MonkeyPatch, rows: int, nearest: int
) -> None:
    """Rows of a batch that do not divide over the GPUs are refused with the nearest number."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    with pytest.raises(UserError, match=f"--batch-rows {rows} does .* 3 GPUs: give {nearest},"):
        rows_of_device(rows, "--batch-rows")
    assert rows_of_device(nearest, "--batch-rows") * 3 == nearest
