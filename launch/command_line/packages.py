"""The sentence about a Python that lacks what Stillhouse needs; standard library alone.

Entry points import everything else inside `packages_required()`, so that a forgotten
`source .venv/bin/activate` is answered by one sentence.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REFUSED = 2
_ROOT = Path(__file__).resolve().parents[2]
_OWN = ("data_prep", "launch", "pretrain")
_OLDEST = (3, 11)


@contextmanager
def packages_required() -> Iterator[None]:
    """Exit with code 2 and one sentence when an import in the block finds no package."""
    if sys.version_info < _OLDEST:
        version = ".".join(map(str, sys.version_info[:3]))
        _refuse(f"Python {version} is too old, Stillhouse needs 3.11 or newer: {_remedy()}")
    try:
        yield
    except ModuleNotFoundError as error:
        if not is_package_missing(error):
            raise
        _refuse(missing_package(error))


def is_package_missing(error: ModuleNotFoundError) -> bool:
    """Return whether a package of others is missing; a missing module of our own is a bug."""
    return bool(error.name) and str(error.name).partition(".")[0] not in _OWN


def missing_package(error: ModuleNotFoundError) -> str:
    """Return the sentence: the package, and how to get it."""
    package = str(error.name).partition(".")[0]
    return f"The package {package} is not installed for {sys.executable}: {_remedy()}"


def is_main_rank() -> bool:
    """Return whether this process speaks for all ranks that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def _remedy() -> str:
    environment = _ROOT / ".venv"
    if not environment.exists():
        return (
            "set up and activate .venv with `source launch/setup_venv.sh`, or run "
            "`bash launch/quickstart.sh`."
        )
    if Path(sys.prefix) == environment:
        return "complete .venv with `source launch/setup_venv.sh`."
    return "activate the environment with `source .venv/bin/activate`."


def _refuse(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    raise SystemExit(REFUSED)
