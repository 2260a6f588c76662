"""Shapes, types, devices and synchronisation of a GPU step, checked on a machine without a GPU."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[3]
TORCH = Path(torch.__file__).parent
LIMIT_S = 600
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


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the library that makes torch report a GPU; return its path."""
    library = tmp_path_factory.mktemp("gpu") / "libgpu_stand_in.so"
    libraries = [f"-L{TORCH / 'lib'}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{TORCH / 'lib'}"]
    command = ["g++", "-std=c++20", "-O0", "-shared", "-fPIC", f"-I{TORCH / 'include'}"]
    subprocess.run(
        [*command, str(HERE / "gpu_stand_in.cpp"), "-o", str(library), *libraries],
        check=True,
        timeout=LIMIT_S,
    )
    return library


@pytest.mark.skipif(torch.backends.cuda.is_built(), reason="this torch is built with CUDA")
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_gpu_step_has_no_synchronisation(stand_in: Path) -> None:
    """Shapes, types and devices of a GPU step fit, without any device-to-host synchronisation."""
    variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    finished = subprocess.run(
        [sys.executable, str(HERE / "gpu_dry_run.py")],
        # Preloaded, because torch looks for a GPU only once.
        env={**variables, "PYTHONPATH": str(ROOT), "LD_PRELOAD": str(stand_in)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert set(finished.stdout.split()) == KERNELS
