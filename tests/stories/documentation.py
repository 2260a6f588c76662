"""The commands of README.md and docs/, as a reader would copy them."""

import re
import shlex
from pathlib import Path

from tests.stories.conftest import ROOT

README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def section(page: Path, title: str) -> str:
    """Return the text of one section."""
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"{page.name} has no section {title!r}"
    return found.group(1)


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def block(text: str, language: str) -> str:
    """Return the first code block of a language."""
    found = blocks(text, language)
    assert found, f"no {language} block"
    return found[0]


def commands(text: str) -> list[list[str]]:
    """Return the shell commands of the bash blocks, split into words, comments dropped."""
    lines = "".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def steps(text: str) -> list[list[str] | str]:
    """Return the commands of the bash blocks and the texts of the python blocks, in order."""
    found: list[list[str] | str] = []
    for language, content in re.findall(r"```(bash|python)\n(.*?)```", text, re.DOTALL):
        block_of = f"```{language}\n{content}```"
        found += commands(block_of) if language == "bash" else [content]
    return found
