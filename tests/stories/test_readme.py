"""What README.md tells a newcomer to type does what it says."""

import ast
import re
import sys
import time
from pathlib import Path

import pytest

from tests.stories.conftest import ROOT, launch_command, run_command, status_of
from tests.stories.readme import README, block, commands, section

# The README's recipes are of real size; these make them small enough for two cores.
SMALL = (
    "train.steps=4 train.batch_rows=8 train.micro_rows=2 train.row_tokens=64 "
    "train.precision=fp32 deepspeed.config=ds_configs/zero1_fp32.json optim.warmup_steps=1 "
    "validation.rows=8 log.every_steps=1"
).split()
SMALL_MODEL = (
    "model.layers=2 model.width=32 model.heads=2 model.feed_forward=64 model.positions=64"
).split()
EXTRA = {
    "launch/prepare_data.py": ["tokenizer.vocab_size=400", "corpus.validation_share=0.2"],
    "launch/train_teacher.py": SMALL + SMALL_MODEL,
    "launch/distill_student.py": [*SMALL, "student.init=[1]"],
    "launch/publish_student.py": [],
}


@pytest.mark.story
def test_the_five_lines_turn_own_text_into_a_student_that_transformers_fine_tunes(
    tmp_path: Path,
) -> None:
    write_text(tmp_path / "data" / "text")
    text = section("Your own corpus")
    typed = [words for words in commands(text) if words[0] != "source"]
    assert [words[1] for words in typed] == list(EXTRA), "the README's commands have changed"
    for program, script, *arguments in typed:
        words = [*arguments, *EXTRA[script]]
        if program == "deepspeed":
            command = launch_command(ROOT / script, *words)
        else:
            command = [sys.executable, str(ROOT / script), *words]
        run_command(command, cwd=tmp_path)
    assert status_of(tmp_path / "runs" / "teacher")["state"] == "done"
    assert status_of(tmp_path / "runs" / "student")["state"] == "done"
    names = {path.suffix for path in (tmp_path / "export" / "student").iterdir()}
    assert names <= {".safetensors", ".json", ".txt", ".md"}

    run_command([sys.executable, "-c", block(text, "python")], cwd=tmp_path)
    card = (tmp_path / "export" / "student" / "README.md").read_text(encoding="utf-8")
    printed = run_command(
        [sys.executable, "-c", block(card, "python")], cwd=tmp_path / "export"
    ).stdout
    assert len(ast.literal_eval(printed)) == 5, printed
    plot = "python launch/plot.py runs/teacher"
    assert plot in text
    plot_both = [sys.executable, str(ROOT / "launch/plot.py"), "runs/teacher", "runs/student"]
    run_command(plot_both, cwd=tmp_path)


@pytest.mark.story
def test_the_quickstart_runs_whole_and_a_second_time_at_once(tmp_path: Path) -> None:
    (quickstart, tests) = commands(section("Two commands"))
    assert quickstart == ["bash", "launch/quickstart.sh"]
    assert tests == ["bash", "tests/run.sh"]
    small = ["train.steps=4", "optim.warmup_steps=1", "validation.rows=16", "train.batch_rows=32"]
    variables = {"OUT": str(tmp_path), "VENV": sys.prefix}
    first = run_command([*quickstart, *small], **variables).stdout
    assert "Done in" in first
    assert re.search(r"quickstart-teacher +[\d,]+ +\d", first), "the table is missing"
    assert re.search(r"quickstart-student +[\d,]+ +\d", first), "the table is missing"
    assert "[MASK]" in first
    started = time.monotonic()
    again = run_command([*quickstart, *small], **variables)
    second = again.stdout + again.stderr
    assert second.count("nothing to do") == 2
    assert second.count("up to date") == 3
    assert time.monotonic() - started < 120


def test_every_file_and_recipe_that_the_readme_names_exists() -> None:
    for name in re.findall(r"(?:launch|tests|ds_configs|data_prep)/[\w/.]+\.\w+", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`(\w+)\.yaml`", section("Recipes")):
        assert (ROOT / "launch" / "recipes" / f"{name}.yaml").is_file(), name


def test_the_file_tree_of_the_readme_names_every_module() -> None:
    tree = section("The house")
    for room in ("data_prep", "pretrain"):
        for path in (ROOT / room).iterdir():
            if path.suffix == ".py" and path.name != "__init__.py":
                assert path.name in tree, f"{room}/{path.name} is missing in README.md"


def write_text(folder: Path) -> None:
    """Write 23 chapters of the sample as documents with blank lines between them."""
    folder.mkdir(parents=True)
    chapters = sorted((ROOT / "data_prep/sample_corpus/novels").glob("stretton*/*.txt"))
    documents = [
        "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if line)
        for path in chapters
    ]
    (folder / "novel.txt").write_text("\n\n".join(documents), encoding="utf-8")
