"""Kernels compile for a GPU on a machine without one: their interpreter accepts more than that."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("compile_all.py")
ROOT = Path(__file__).parents[4]
KERNELS = {
    "bias_gelu._forward",
    "bias_gelu._backward",
    "residual_norm._forward",
    "residual_norm._backward",
    "embedding_norm._forward",
    "embedding_norm._backward",
    "linear_cross_entropy._row_kernel",
    "soft_cross_entropy._row_kernel",
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_kernel_compiles_for_a_gpu(dtype: str) -> None:
    variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), dtype],
        env={**variables, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert set(ended.stdout.split()) >= KERNELS
