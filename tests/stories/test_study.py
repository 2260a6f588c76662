"""A study: two methods are trained, published, scored, and put in a table."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import yaml

from pretrain.model import BertShape
from tests.stories.conftest import ROOT, run_command, tiny_recipe
from tests.synthetic_corpora import WORDS

pytestmark = pytest.mark.story


@pytest.fixture(scope="session")
def tiny_shape(tiny_shape: BertShape) -> BertShape:
    """Give the published teacher the positions that are scored."""
    return dataclasses.replace(tiny_shape, positions=128)


def test_study_runs_every_part_once(
    tmp_path: Path, published_teacher: Path, tiny_corpus: Path, tiny_tokenizer: Path
) -> None:
    """A study trains, publishes and scores each method once, and writes its table."""
    recipe = write_study(tmp_path, published_teacher, tiny_corpus, tiny_tokenizer)
    report = tmp_path / "study.json"
    command = [sys.executable, str(ROOT / "launch/study.py"), "--config", str(recipe)]

    planned = run_command([*command, "--dry-run"]).stdout.splitlines()
    assert len(planned) == 2
    assert all("distill_student.py" in line for line in planned)
    assert not (tmp_path / "study").exists(), "a dry run leaves nothing"

    first = run_command([*command, "--json", str(report)]).stdout
    found = json.loads(report.read_text(encoding="utf-8"))
    names = ["teacher", "untrained", "copied", "none", "soft"]
    assert [row["name"] for row in found["rows"]] == names
    assert {"device", "versions", "commit", "budget"} <= found.keys()
    none, soft = found["rows"][3:]
    assert none["seeds"][0]["loss"] != soft["seeds"][0]["loss"]
    assert soft["training_flops"] > none["training_flops"] > 0, "a teacher costs something"
    assert all(row["seeds"][0]["tasks"]["word"]["tried"] for row in found["rows"])
    assert "| soft | soft targets |" in first

    again = run_command(command).stdout
    assert "scoring" not in again
    assert "distill_student.py" not in again
    assert again.strip() == "\n".join(first.strip().splitlines()[-9:])


def write_study(folder: Path, teacher: Path, corpus: Path, tokenizer: Path) -> Path:
    """Write a study of two methods and one seed, its student's recipe, and its task."""
    student = tiny_recipe(Path("replaced"), corpus, tokenizer)
    student["teacher"] = {"path": "replaced"}
    student["student"] = {"init": [1]}
    (folder / "student.yaml").write_text(yaml.safe_dump(student), encoding="utf-8")
    parts = {part: str(folder / f"{part}.csv") for part in ("train", "dev", "test")}
    for first, path in enumerate(parts.values(), start=2):
        lines = [f"{i % 2},{WORDS[i % 2]} {WORDS[i]}" for i in range(first, 60, 3)]
        Path(path).write_text("\n".join(["label,text", *lines]), encoding="utf-8")
    tree = {
        "path": str(folder / "study"),
        "teacher": str(teacher),
        "recipe": str(folder / "student.yaml"),
        # One rank without a launcher: the quickest start.
        "launcher": [sys.executable],
        "seeds": [0],
        "held_out_rows": 8,
        "methods": [
            {"name": "none", "what": "none", "keys": {"objectives": [{"kind": "hard_mlm"}]}},
            {
                "name": "soft",
                "what": "soft targets",
                "keys": {"objectives": [{"kind": "soft_targets"}]},
            },
        ],
        "tasks": [{"name": "word", **parts, "epochs": 1, "rates": [1e-3]}],
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path
