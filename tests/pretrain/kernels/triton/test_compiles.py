"""Kernels compile for a GPU on a machine without one; the interpreter accepts more code."""

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
    "soft_cross_entropy_row.row_kernel",
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_kernel_compiles_for_gpu(dtype: str) -> None:
    """Every kernel compiles for an H100 in fp32, bf16 and fp16."""
    variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    finished = subprocess.run(
        [sys.executable, str(PROGRAM), dtype],
        env={**variables, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert set(finished.stdout.split()) >= KERNELS
