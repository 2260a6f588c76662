"""What a built wheel holds, and whether an installed one finds it from any folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("data_prep", "pretrain", "launch", "ds_configs")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this source, built in a copy so that nothing stale can slip in, and unpacked."""
    base = tmp_path_factory.mktemp("packaging")
    source = base / "source"
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            str(base),
            str(source),
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = base.glob("stillhouse-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(base / "installed")
    return base / "installed"


@pytest.mark.parametrize(
    "pattern",
    [
        "launch/recipes/*.yaml",
        "launch/slurm/*",
        "launch/quickstart.sh",
        "launch/constraints.txt",
        "ds_configs/*.json",
        "data_prep/sample_corpus/**/*",
        "pretrain/export/card/template.md",
        "pretrain/**/*.py",
    ],
)
def test_a_wheel_holds_every_file_of(pattern: str, installed: Path) -> None:
    wanted = {
        path.relative_to(ROOT)
        for path in ROOT.glob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted, f"the source has no {pattern}"
    assert {path for path in wanted if not (installed / path).is_file()} == set()


def test_a_wheel_holds_nothing_but_the_packages_and_its_metadata(installed: Path) -> None:
    top_level = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}
    assert top_level == set(PACKAGES)


@pytest.mark.parametrize(
    ("path", "package", "folder"),
    [
        ("launch/recipes/quickstart_corpus.yaml", "launch", "recipes"),
        ("ds_configs/zero1_bf16.json", "ds_configs", ""),
    ],
)
def test_a_shipped_file_is_found_from_another_folder(
    path: str, package: str, folder: str, installed: Path, tmp_path: Path
) -> None:
    program = (
        "import sys; from pathlib import Path; from data_prep.config.loader import find_shipped\n"
        "print(find_shipped(Path(sys.argv[1]), *sys.argv[2:]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, path, package, folder],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert Path(found.stdout.strip()) == installed / path
