"""The benchmark of fused operations, on a CPU: errors against fp64, limits of measured ceilings."""

from pathlib import Path
from typing import Any

import pytest
import torch

from launch.bench import _parser
from launch.benchmarks import kernels
from launch.benchmarks.kernels import CASES, exact_kernels, size_of
from pretrain.kernels.dispatch import choose_kernels

CPU = torch.device("cpu")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case_returns_output_and_gradients(case: Any) -> None:
    """A case returns the output and all gradients, the same for every precision."""
    size = size_of(128, 16, 50)
    plain = choose_kernels("reference", "reference", CPU)
    exact = case.prepare(exact_kernels(), size, torch.float64, CPU)()
    found = case.prepare(plain, size, torch.float32, CPU)()
    assert len(exact) >= 3 and all(bool(x.any()) for x in exact)
    # The same numbers were drawn, up to the rounding of fp32.
    assert all(torch.allclose(x.double(), y, atol=1e-3) for x, y in zip(found, exact, strict=True))
    assert case.elements(size) > 0


def test_rows_have_error_and_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows have the error against fp64, and limits from measured ceilings."""
    monkeypatch.setattr(kernels, "copy_bandwidth", lambda device, size: 1e9)
    monkeypatch.setattr(kernels, "matmul_flops", lambda dtype, device, size: 1e9)
    arguments = _parser("kernels").parse_args(["kernels", "--quick"])
    rows = {row.name: row for row in kernels.run(arguments, tmp_path)}
    # In ms: 5 arrays of 256 x 128 fp32 numbers at 1 GB/s; 6 products at 1 GFLOPS.
    assert rows["limit/bias_gelu/tiny"].values[0] == pytest.approx(5 * 256 * 128 * 4 / 1e6)
    limit = rows["limit/linear_cross_entropy/tiny"].values[0]
    assert limit == pytest.approx(6 * 38 * 32 * 500 / 1e6)
    for case in CASES:
        # A sum of a few hundred roundings of 2^-24.
        assert 0 < rows[f"peer/{case.name}/eager/tiny"].details["error"] < 1e-5
