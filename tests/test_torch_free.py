"""Preparation needs neither torch nor deepspeed: not its modules, and not its tests."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Takes the place of an environment without these packages: importing one raises
# ModuleNotFoundError, and looking for one finds nothing, as libraries do that can use it.
WITHOUT_TORCH = """
import importlib.machinery
import sys

BLOCKED = ("torch", "deepspeed", "triton")


class FinderWithoutTorch(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            return None
        return super().find_spec(name, path, target)


plain = importlib.machinery.PathFinder
sys.meta_path[:] = [FinderWithoutTorch if finder is plain else finder for finder in sys.meta_path]
"""
IMPORT_ALL = """
import importlib
import pkgutil

import data_prep

names = [module.name for module in pkgutil.walk_packages(data_prep.__path__, "data_prep.")]
for name in names:
    importlib.import_module(name)
assert len(names) > 40, names
"""
RUN_PYTEST = """
import pytest

sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""
# Of each room a file that takes a second or two.
QUICK = [
    "config/test_schema.py",
    "corpus/test_shards.py",
    "dedup/test_rolling_hash.py",
    "filters/test_plugins.py",
    "pipeline/test_file_modes.py",
    "readers/test_listing.py",
    "samples/test_packing.py",
    "tokenize/test_sentence_rules.py",
    "tokenizers/test_folder.py",
    "test_manifest.py",
]


def run_without_torch(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that finds neither torch nor deepspeed."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH + code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("package", ["torch", "deepspeed"])
def test_blocker_hides_package(package: str) -> None:
    """The simulated environment lacks the package, so the other tests of this file prove it."""
    result = run_without_torch(f"import {package}")
    assert f"ModuleNotFoundError: No module named '{package}'" in result.stderr


def test_data_prep_imports_without_torch() -> None:
    """Every module of `data_prep` can be imported without torch."""
    result = run_without_torch(IMPORT_ALL)
    assert result.returncode == 0, result.stderr


def test_data_prep_tests_collect_without_torch() -> None:
    """All tests of `data_prep` are collected without torch."""
    result = run_without_torch(RUN_PYTEST, "--collect-only", "tests/data_prep")
    assert result.returncode == 0, result.stdout + result.stderr


def test_data_prep_tests_pass_without_torch() -> None:
    """A quick file of tests for each room of `data_prep` passes without torch."""
    result = run_without_torch(RUN_PYTEST, *(f"tests/data_prep/{name}" for name in QUICK))
    assert result.returncode == 0, result.stdout + result.stderr
