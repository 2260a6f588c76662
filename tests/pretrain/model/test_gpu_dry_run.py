"""A step on a GPU is put together rightly, as far as a machine without one can tell."""

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
    "soft_cross_entropy._row_kernel",
}


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the library that lets this torch pretend."""
    made = tmp_path_factory.mktemp("gpu") / "libgpu_stand_in.so"
    libraries = [f"-L{TORCH / 'lib'}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{TORCH / 'lib'}"]
    command = ["g++", "-std=c++20", "-O0", "-shared", "-fPIC", f"-I{TORCH / 'include'}"]
    subprocess.run(
        [*command, str(HERE / "gpu_stand_in.cpp"), "-o", str(made), *libraries],
        check=True,
        timeout=LIMIT_S,
    )
    return made


@pytest.mark.skipif(torch.backends.cuda.is_built(), reason="this torch has the real thing")
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_step_fits_together_and_never_waits_for_the_gpu(stand_in: Path) -> None:
    variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    ended = subprocess.run(
        [sys.executable, str(HERE / "gpu_dry_run.py")],
        # Before torch itself, which looks for a GPU once.
        env={**variables, "PYTHONPATH": str(ROOT), "LD_PRELOAD": str(stand_in)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert set(ended.stdout.split()) == KERNELS
