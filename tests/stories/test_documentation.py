"""What README.md and docs/ tell a reader to type does what they say."""

import ast
import re
import sys
import time
import tomllib
from pathlib import Path

import pytest

from data_prep.config.loader import load_recipe
from pretrain.config.run import TeacherRecipe
from pretrain.distil.config import StudentRecipe
from tests.launch.downstream.toy_tasks import (
    write_classification,
    write_qa,
    write_regression,
    write_tokens,
)
from tests.stories.conftest import ROOT, launch_command, run_command, status_of
from tests.stories.documentation import PAGES, README, block, blocks, commands, section, steps

# The documented recipes are of real size; these make them small enough for two cores.
SMALL = (
    "train.steps=4 train.batch_rows=8 train.micro_rows=2 train.row_tokens=64 train.phases=[] "
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
    "launch/write_teacher_cache.py": [*SMALL, "student.init=[1]"],
    "launch/publish_student.py": [],
    "launch/compare.py": ["--rows", "8"],
    "launch/plot.py": [],
    "launch/study.py": [],
    "launch/finetune.py": "--seeds 1 --epochs 1 --lr 1e-3 --max-tokens 48".split(),
    "launch/bench.py": [],
}
TRAINING = ("launch/train_teacher.py", "launch/distill_student.py")
# First words of commands that are for a person at a terminal, or for a cluster.
FILE = r"(?:launch|tests|ds_configs|data_prep|pretrain)/[\w/.]+\.\w+"
NOT_EXECUTED = ("source", "bash", "cat", "pre-commit", "sbatch")


def executed(words: list[str]) -> bool:
    """Tell whether a documented command is executed here."""
    return words[0] not in NOT_EXECUTED and not words[0].startswith("array=")


def run_documented(words: list[str], cwd: Path, ranks: int, *, run: Path | None = None) -> str:
    """Run a documented command at test size in a folder, and return what it prints."""
    program, *rest = words
    script = next(word for word in rest if word.endswith(".py"))
    arguments = [*rest[rest.index(script) + 1 :], *EXTRA[script]]
    if run is not None:
        arguments.append(f"run.path={run}")
    if program == "deepspeed":
        command = launch_command(ROOT / script, *arguments, ranks=ranks)
    else:
        command = [sys.executable, str(ROOT / script), *arguments]
    return run_command(command, cwd=cwd).stdout


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the commands of the README's own corpus were run."""
    folder = tmp_path_factory.mktemp("workspace")
    write_text(folder / "data" / "text")
    write_tasks(folder / "data")
    typed = [words for words in commands(section(README, "Your own corpus")) if executed(words)]
    assert len(typed) == 6, "the README's commands have changed"
    for words in typed:
        run_documented(words, folder, ranks=2)
    return folder


@pytest.mark.story
def test_readme_makes_own_student(workspace: Path) -> None:
    """The README's lines turn own text into a student that transformers fine-tunes."""
    assert status_of(workspace / "runs" / "teacher")["state"] == "done"
    assert status_of(workspace / "runs" / "student")["state"] == "done"
    names = {path.suffix for path in (workspace / "export" / "student").iterdir()}
    assert names <= {".safetensors", ".json", ".txt", ".md"}

    python = block(section(README, "Your own corpus"), "python")
    run_command([sys.executable, "-c", python], cwd=workspace)
    card = (workspace / "export" / "student" / "README.md").read_text(encoding="utf-8")
    printed = run_command(
        [sys.executable, "-c", block(card, "python")], cwd=workspace / "export"
    ).stdout
    assert len(ast.literal_eval(printed)) == 5, printed


@pytest.mark.story
def test_docs_commands_run(workspace: Path) -> None:
    """All commands and Python of docs/ that are not for a cluster run after those of the README."""
    seen = steps(README.read_text(encoding="utf-8"))
    number = 0
    for page in PAGES:
        if page == README:
            continue
        for words in steps(page.read_text(encoding="utf-8")):
            if words in seen or (isinstance(words, list) and not executed(words)):
                continue
            seen.append(words)
            if isinstance(words, str):
                if page.name != "python_api.md":  # its lines follow the quickstart
                    run_command([sys.executable, "-c", words], cwd=workspace)
                continue
            script = next(word for word in words if word.endswith(".py"))
            own_run = script in TRAINING and not any(w.startswith("run.path=") for w in words)
            number += own_run
            run = Path(f"runs/documented_{number}") if own_run else None
            run_documented(words, workspace, ranks=1, run=run)


@pytest.mark.story
def test_quickstart_runs_twice(tmp_path: Path) -> None:
    """The quickstart runs whole, a second time at once, and the Python API reads what it made."""
    (quickstart, tests) = commands(section(README, "Two commands"))
    assert quickstart == ["bash", "launch/quickstart.sh"]
    assert tests == ["bash", "tests/run.sh"]
    small = ["train.steps=4", "train.phases=[]", "optim.warmup_steps=1", "validation.rows=16"]
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
    for python in blocks((ROOT / "docs" / "python_api.md").read_text("utf-8"), "python"):
        run_command([sys.executable, "-c", python], cwd=tmp_path)


def test_named_files_exist() -> None:
    """Every file, recipe and page that the documentation names exists."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(
            r"(?:launch|tests|ds_configs|data_prep|pretrain)/[\w/.]+\.\w+", text
        ):
            assert (ROOT / name).exists(), f"{page.name}: {name}"
        for name in re.findall(r"\]\(([\w/.]+\.md)", text):
            assert (page.parent / name).exists(), f"{page.name}: {name}"
        for name in set(re.findall(r"`(\w+)\.yaml`", text)) - {"config"}:  # of a run folder
            assert (ROOT / "launch" / "recipes" / f"{name}.yaml").is_file(), f"{page.name}: {name}"


def test_recipe_page_lists_recipes() -> None:
    """docs/recipes.md names every recipe that is shipped."""
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    listed = {
        name.replace(braces, choice)
        for name in re.findall(r"`([\w{},]+)\.yaml`", text)
        for braces in [(re.findall(r"\{.*\}", name) or [""])[0]]
        for choice in braces.strip("{}").split(",")
    }
    shipped = {path.stem for path in (ROOT / "launch" / "recipes").glob("*.yaml")}
    assert shipped - listed == set()


def test_cluster_commands_have_valid_recipes() -> None:
    """What the pages hand to sbatch names scripts that exist and recipes that load."""
    kinds = {"launch/train_teacher.py": TeacherRecipe, "launch/distill_student.py": StudentRecipe}
    checked = 0
    for page in PAGES:
        for words in commands(page.read_text(encoding="utf-8")):
            if words[0] != "sbatch":
                continue
            assert any((ROOT / word).is_file() for word in words if word.endswith(".sbatch"))
            for script in set(words) & kinds.keys():
                at = words.index("--config")
                load_recipe(kinds[script], Path(words[at + 1]), words[at + 2 :])
                checked += 1
    assert checked >= 3


def test_architecture_shows_contract_floors() -> None:
    """docs/architecture.md draws the floors that the import contracts enforce."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    floors = {
        contract["containers"][0]: contract["layers"]
        for contract in project["tool"]["importlinter"]["contracts"]
        if "containers" in contract
    }
    for package, layers in floors.items():
        drawn = re.search(rf"<!-- floors: {package} -->\n```text\n(.*?)```", text, re.DOTALL)
        assert drawn, f"no floors of {package}"
        lines = [line.strip() for line in drawn.group(1).splitlines()]
        assert [re.split(r"  +", line)[0] for line in lines] == layers


def write_tasks(folder: Path) -> None:
    """Write the examples that docs/finetuning.md names."""
    for name, write in {
        "news": write_classification,
        "similarity": write_regression,
        "entities": write_tokens,
        "questions": write_qa,
    }.items():
        (folder / name).mkdir()
        write(folder / name)


def write_text(folder: Path) -> None:
    """Write 23 chapters of the sample as documents with blank lines between them."""
    folder.mkdir(parents=True)
    chapters = sorted((ROOT / "data_prep/sample_corpus/novels").glob("stretton*/*.txt"))
    documents = [
        "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if line)
        for path in chapters
    ]
    (folder / "novel.txt").write_text("\n\n".join(documents), encoding="utf-8")
