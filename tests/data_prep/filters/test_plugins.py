"""Plugins: a wrong name in a recipe is refused in one sentence with its key."""

from pathlib import Path

import pytest

from data_prep.errors import UserError
from data_prep.filters.plugins import load_plugin


def test_plugin_from_module() -> None:
    """A function of a module is found."""
    assert load_plugin("os.path:basename", "clean.keep")("a/b") == "b"


def test_plugin_from_dotted_name() -> None:
    """A dotted name after the colon is resolved."""
    assert load_plugin("pathlib:Path.as_posix", "clean.keep")(Path("a") / "b") == "a/b"


def test_plugin_from_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is found relative to the working directory."""
    (tmp_path / "filters").mkdir()
    (tmp_path / "filters" / "mine.py").write_text(
        "from __future__ import annotations\n"
        "import dataclasses\n"
        "@dataclasses.dataclass\nclass Letter:\n    value: str = 'x'\n"
        "def keep(text):\n    return Letter().value in text\n"
    )
    monkeypatch.chdir(tmp_path)
    keep = load_plugin("filters/mine.py:keep", "clean.keep")
    assert keep("axe") and not keep("saw")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("os.path.basename", "does not name a function"),
        (":basename", "does not name a function"),
        ("os.path:", "does not name a function"),
        ("no_such_package.filters:keep", "there is no no_such_package.filters"),
        ("os.no_such_module:keep", "there is no os.no_such_module"),
        ("no/such/file.py:keep", "there is no no/such/file.py"),
        ("os.path:no_such_function", "has no no_such_function"),
        ("os:sep", "is a str and cannot be called"),
    ],
)
def test_wrong_plugin_name_is_refused(name: str, complaint: str) -> None:
    """A wrong name is refused with its recipe key."""
    with pytest.raises(UserError) as caught:
        load_plugin(name, "clean.keep")
    message = str(caught.value)
    assert message.startswith(f"clean.keep is {name!r}") and complaint in message


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def keep(:", "SyntaxError"),
    ],
)
def test_failing_plugin_import_is_reported(tmp_path: Path, code: str, reason: str) -> None:
    """A module that exists but fails to import is not reported as missing."""
    path = tmp_path / "mine.py"
    path.write_text(code)
    with pytest.raises(UserError, match="importing") as caught:
        load_plugin(f"{path}:keep", "input.sentences")
    assert reason in str(caught.value)
