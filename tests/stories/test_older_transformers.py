"""Exports are read by the newest transformers of version 4, in an environment of its own.

The environment has the packages of this one but for what transformers 4 needs in another version.
It is kept in pytest's cache.
"""

import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from pretrain.export.fresh_process import SCRIPT
from pretrain.model import BertShape
from tests.exports import FORMATS, publish_format
from tests.model_fixtures import in_one_process
from tests.stories.conftest import run_command

__all__ = ["in_one_process"]  # the checks of publishing itself run elsewhere

VERSION = "4.57"
LIMIT_S = 120


@pytest.fixture(scope="module")
def older_python(pytestconfig: pytest.Config) -> Path:
    """Return the interpreter of an environment with transformers 4.57, made once."""
    assert pytestconfig.cache is not None
    cache = pytestconfig.cache.mkdir("environments")
    folder = cache / f"transformers-{VERSION}-python-{sys.version_info.major}.{sys.version_info[1]}"
    python = folder / "bin" / "python"
    if not _has_version(python):
        shutil.rmtree(folder, ignore_errors=True)
        if reason := _install(folder, python):
            pytest.skip(f"transformers {VERSION} cannot be installed here: {reason}")
    return python


def _install(folder: Path, python: Path) -> str | None:
    """Make the environment; return why it cannot be made, or None."""
    venv.create(folder, symlinks=True)
    (own,) = (folder / "lib").glob("python*/site-packages")
    # torch and all else that both versions can use come from here; what is installed goes first.
    (own / "outer.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    try:
        ended = subprocess.run(
            [*pip, f"transformers=={VERSION}.*"],
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return f"pip took more than {LIMIT_S} s"
    if ended.returncode:
        return (ended.stderr.strip().splitlines() or ["pip failed"])[-1]
    assert _has_version(python), ended.stdout + ended.stderr
    return None


def _has_version(python: Path) -> bool:
    """Tell whether an interpreter imports that version, without importing all of it."""
    if not python.is_file():
        return False
    code = "from importlib.metadata import version; print(version('transformers'))"
    ended = subprocess.run([python, "-P", "-c", code], capture_output=True, text=True)
    return ended.returncode == 0 and ended.stdout.startswith(f"{VERSION}.")


@pytest.mark.story
def test_older_transformers_reads_every_format(
    older_python: Path, tmp_path: Path, tiny_tokenizer: Path, tiny_shape: BertShape
) -> None:
    """All checks of publishing pass there too, for each format and kind of tokenizer."""
    exports = [publish_format(tmp_path, name, tiny_tokenizer, tiny_shape) for name in FORMATS]
    one_process = (
        "import runpy, sys\n"
        "import transformers\n"
        f"assert transformers.__version__.startswith({VERSION!r} + '.'), transformers.__file__\n"
        "script = runpy.run_path(sys.argv[1])\n"
        "for name in sys.argv[2:]:\n"
        "    print(name)\n"
        "    script['main'](script['Path'](name), name)\n"
    )
    command = [str(older_python), "-P", "-c", one_process, str(SCRIPT)]
    run_command([*command, *(export.name for export in exports)], cwd=tmp_path)
