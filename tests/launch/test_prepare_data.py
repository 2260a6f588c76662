import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data_prep.conftest import make_prose

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "launch" / "prepare_data.py"

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Return a function that runs the script on a small recipe, in another folder."""
    (tmp_path / "text.txt").write_text(make_prose("command", 20), "utf-8")
    (tmp_path / "recipe.yaml").write_text(
        "input: {path: text.txt}\n"
        "tokenizer: {path: run/tokenizer, vocab_size: 200}\n"
        "corpus: {path: run/corpus, validation_share: 0.3}\n"
    )

    def run(*arguments: str, config: str = "recipe.yaml") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, str(SCRIPT), "--config", config, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def refusal(result: "subprocess.CompletedProcess[str]") -> str:
    """Return the one sentence of a refused command."""
    *log_lines, sentence = result.stderr.splitlines()
    assert result.returncode == 2, result.stderr
    assert sentence.startswith("error: ") and sentence.endswith((".", "?"))
    assert not any("Traceback" in line for line in log_lines)
    return sentence


def test_documents_need_no_tokenizer(command: Command, tmp_path: Path) -> None:
    """Before there is a corpus, documents of the input are printed as sentences."""
    shown = command("--documents", "2")
    assert shown.returncode == 0, shown.stderr
    first, second = shown.stdout.strip().split("\n\n")
    assert first.startswith("document 0: 3 sentences, ") and second.startswith("document 1: 4 ")
    assert all(line.endswith(".") for line in first.splitlines()[1:])
    assert not (tmp_path / "run").exists()
    assert "no/such" in refusal(command("--documents", "1", "input.path=no/such"))


def test_corpus_is_built_verified_shown(command: Command, tmp_path: Path) -> None:
    """A corpus is built, verified and shown; a second build finds it up to date."""
    made = command()
    assert made.returncode == 0 and "wrote run/corpus" in made.stderr
    # Overrides may stand on either side of an option.
    shown = command("workers=1", "--verify", "--documents", "2", "seed=0", "--show", "3")
    assert shown.returncode == 0, shown.stderr
    assert "run/corpus is whole" in shown.stdout and "document 1: " in shown.stdout
    assert shown.stdout.count("  sample ") == 3 and "row 0: " in shown.stdout
    assert "is up to date" in command().stderr


def test_statistics_are_drawn_beside_corpus(command: Command, tmp_path: Path) -> None:
    """--stats prints the statistics and draws them beside the corpus or in --out."""
    command()
    result = command("--stats", "--row-tokens", "32")
    assert result.returncode == 0, result.stderr
    assert "sentences" in result.stdout and "rows of 32: " in result.stdout
    drawn = {path.name for path in (tmp_path / "run/corpus-stats").iterdir()}
    assert drawn == {"lengths.png", "frequencies.png", "packing.png"}
    assert command("--stats", "--row-tokens", "32", "--out", "here").returncode == 0
    assert {path.name for path in (tmp_path / "here").iterdir()} == drawn


def test_wrong_requests_are_one_sentence(command: Command, tmp_path: Path) -> None:
    """Wrong requests are refused in one sentence with code 2, and leave nothing behind."""
    (tmp_path / "bad.txt").write_bytes(b"text \xff\n")
    sentences = {
        "missing recipe": refusal(command(config="none.yaml")),
        "unknown key": refusal(command("corpus.pat=x")),
        "missing input": refusal(command("input.path=nowhere")),
        "nothing to verify": refusal(command("--verify")),
        "not UTF-8": refusal(command("input.path=bad.txt")),
    }
    assert "none.yaml" in sentences["missing recipe"]
    assert "did you mean 'corpus.path'" in sentences["unknown key"]
    assert "nowhere does not exist" in sentences["missing input"]
    assert "run/corpus has no manifest.json" in sentences["nothing to verify"]
    assert "byte offset 5 " in sentences["not UTF-8"] and "--errors" in sentences["not UTF-8"]
    assert {path.name for path in tmp_path.iterdir()} <= {
        "bad.txt", "text.txt", "recipe.yaml", "run"
    }  # fmt: skip
    assert list(tmp_path.glob("run/*")) == []


def test_errors_replace_continues(command: Command, tmp_path: Path) -> None:
    """--errors replace continues after bytes that are not UTF-8."""
    with (tmp_path / "text.txt").open("ab") as file:
        file.write(b"\n\nA byte \xff here.\n")
    assert refusal(command())
    assert command("--errors", "replace").returncode == 0


def test_help_fits_one_screen(command: Command) -> None:
    """--help has at most 60 lines of 100 columns."""
    lines = command("--help").stdout.splitlines()
    assert 15 < len(lines) <= 60 and max(map(len, lines)) <= 100


def test_preparation_imports_no_torch() -> None:
    """Preparing a corpus does not import torch."""
    code = "import sys, launch.prepare_data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
