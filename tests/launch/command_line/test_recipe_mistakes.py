"""What newcomers get wrong in recipes and overrides: one sentence with key, value and remedy."""

import sys
from pathlib import Path

import pytest

from data_prep.config.loader import Options
from data_prep.config.schema import CorpusRecipe
from launch.command_line.errors import run_command
from launch.command_line.recipe import read_recipe, recipe_parser
from pretrain.config.run import TeacherRecipe
from pretrain.distil.config import StudentRecipe

TEACHER = """run: {path: runs/teacher}
corpus: {path: runs/corpus}
tokenizer: {path: runs/tokenizer}
train:
  steps: 10
  batch_rows: 8
  micro_rows: 2
"""
STUDENT = f"{TEACHER}teacher: {{path: runs/teacher}}\n"
CORPUS = "input: {path: text}\ntokenizer: {path: t}\ncorpus: {path: c}\n"
KINDS: dict[str, tuple[type[Options], str]] = {
    "teacher": (TeacherRecipe, TEACHER),
    "student": (StudentRecipe, STUDENT),
    "corpus": (CorpusRecipe, CORPUS),
}


def run(kind: type[Options], *words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a recipe as an entry point does."""
    monkeypatch.setattr(sys, "argv", ["train_teacher.py", *words])

    def main() -> None:
        parser = recipe_parser("A command.", kind, "", "teacher_base.yaml")
        read_recipe(kind, parser.parse_intermixed_args())

    run_command(main)


def refusal(
    kind: type[Options],
    *words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """Return the sentence of a refused command line."""
    with pytest.raises(SystemExit) as ended:
        run(kind, *words, monkeypatch=monkeypatch)
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1
    assert printed.endswith((".\n", "?\n"))
    return printed.removeprefix("error: ").removesuffix("\n")


ON = "on the command line"
OVERRIDES = [
    # values of another type
    ("teacher", "optim.lr=small", f"optim.lr is 'small' {ON}, but must be a number."),
    ("teacher", "train.steps=10.5", f"train.steps is 10.5 {ON}, but must be a whole number."),
    ("teacher", "train.tf32=maybe", f"train.tf32 is 'maybe' {ON}, but must be true or false."),
    ("teacher", "optim.lr=0", f"optim.lr is 0 {ON}, but must be greater than 0."),
    ("teacher", "mask.rate=15", f"mask.rate is 15 {ON}, but must be less than 1."),
    ("teacher", "train.seed=-1", f"train.seed is -1 {ON}, but must be 0 or more."),
    ("teacher", "train.precision=bf61", "one of fp32, bf16, fp16: did you mean bf16?"),
    ("teacher", "model.shape=bert-base", "medium, base, large: did you mean base?"),
    ("teacher", "run.path=3", "must be a path: put it in quotes, 'run.path=\"3\"'."),
    ("teacher", "optim.lr=null", "give it a value, or leave the key out for its default 0.0001."),
    ("teacher", "optim=5", "set one of its keys, such as optim.name=VALUE."),
    ("corpus", "tokenizer.kind=BPE", "existing: did you mean bpe?"),
    ("corpus", "tokenizer.vocab_size=30k", "tokenizer.vocab_size is '30k'"),
    ("corpus", "input.text_field=no", "is false on the command line, but must be text: YAML reads"),
    ("corpus", "input.text_field=5", "put it in quotes, 'input.text_field=\"5\"'."),
    # lists
    ("corpus", "input.paths=a,b", "must be a list: write 'input.paths=[a, b]'."),
    ("student", "student.init=0,2", "or a list: write 'student.init=[0, 2]'."),
    ("student", "objectives=soft_targets", "write 'objectives=[{kind: soft_targets}]'."),
    ("student", "objectives=[soft_targets]", "write {kind: soft_targets}."),
    ("student", "objectives={kind: hard_mlm}", "write 'objectives=[{kind: hard_mlm}]'."),
    ("student", "objectives=[{kind: soft_target}]", "did you mean 'soft_targets'?"),
    ("student", "objectives.5.weight=3", "which has the elements 0 to 2: choose one"),
    ("student", "objectives.weight=3", "name an element by its index, such as objectives.0."),
    ("student", "objectives.0.wieght=3", f"'objectives.0.wieght' {ON}: did you mean 'weight'?"),
    ("student", "stages.0.steps=3", "which is empty"),
    ("teacher", "train.phases=[{steps: 10", "is not valid YAML: close its brackets"),
    # names
    ("teacher", "train.batch-rows=8", f"{ON}: did you mean 'train.batch_rows'?"),
    ("teacher", "learning_rate=1", "did you mean 'optim.lr'?"),
    ("teacher", "train.lr=1", "did you mean 'optim.lr'?"),
    ("teacher", "batch_size=8", "did you mean 'train.batch_rows'?"),
    ("teacher", "train.epochs=3", "did you mean 'train.steps'?"),
    ("teacher", "every_steps=5", "'checkpoint.every_steps' or 'log.every_steps'?"),
    ("teacher", "optmi.lr=1", f"Unknown key 'optmi' {ON}: did you mean 'optim'?"),
    ("teacher", "optim.zzz=1", "the keys of optim are name, lr, "),
    ("teacher", "zzz=1", "`--help all` describes them."),
    ("student", "temperature=2", "did you mean 'objectives.0.temperature'?"),
    ("teacher", "teacher.path=x", "it belongs to launch/distill_student.py"),
    ("student", "model.shape=tiny", "it belongs to launch/train_teacher.py"),
    ("teacher", "input.path=x", "it belongs to launch/prepare_data.py"),
    ("corpus", "inputs.wiki.pth=x", "did you mean 'inputs.wiki.path'?"),
    # the form
    ("teacher", "train.steps", "must have the form key.path=value, such as train.steps=VALUE."),
    ("teacher", "train.steps = 40", "without spaces around `=`"),
    ("teacher", "train.steps =40", "without spaces around `=`"),
    ("teacher", "train.steps= 40", "has no value: write it behind `=`, without a space"),
    ("teacher", "train..steps=4", "has an empty part in its key"),
    ("teacher", "train.steps.x=4", "for a group of keys, but it is the value 10"),
    ("teacher", "--train.steps=40", "have no dashes, so write train.steps=40."),
    ("teacher", "--confg x", "did you mean --config?"),
    ("teacher", "--lr 1e-4", "keys of the recipe are written key.path=value."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "override", "sentence"), OVERRIDES, ids=lambda each: str(each)[:40]
)
def test_override_mistakes_name_their_remedy(
    name: str,
    override: str,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A wrong override is refused by a sentence that blames the command line, not the file."""
    kind, content = KINDS[name]
    path = tmp_path / "recipe.yaml"
    path.write_text(content, encoding="utf-8")
    words = [override] if "[" in override or "{" in override else override.split()
    found = refusal(kind, "--config", str(path), *words, monkeypatch=monkeypatch, capsys=capsys)
    assert sentence in found and str(path) not in found


FILES = [
    ("optim:\n", "optim is empty in FILE, but must be a group of keys"),
    ("optim:\n  lr:\n", "optim.lr is empty in FILE, but must be a number: give it a value"),
    ("optim:\n\tlr: 1\n", "line 9 is indented with a tab, where YAML takes spaces"),
    ("optim.lr: 1e-4\n", "dotted keys are for the command line, so write optim: and, indented"),
    ("  optim:\n    lr: 1\n", "Unknown key 'train.optim' in FILE: 'optim' stands at the top level"),
    ("optim: lr: 1\n", "line 8 has a second colon"),
    (
        "optim:\n  lr 1\n",
        "optim is 'lr 1' in FILE, but must be a group of keys: put a colon behind",
    ),
    ("optim:\n  lr: 1\n  lr: 2\n", "The key 'optim.lr' is given twice in FILE, in lines 9 and 10"),
    ("mask: {policy: on}\n", "mask.policy is true in FILE"),
    ("optim: {lr: 1e-4\n", "a bracket is still open in line"),
    ("log: [1]\n", "write its keys below it, indented, such as `every_steps:`."),
    ("deepspeed: zero1.json\n", "write its keys below it, indented, such as `config:`."),
    ("mask: {rate: 15%}\n", "mask.rate is '15%' in FILE, but must be a number."),
    ("1: 2\n", "The key 1 in FILE is no text"),
    ("optimizer: {lr: 1}\n", "Unknown key 'optimizer' in FILE: did you mean 'optim.name'?"),
    ("objectives: []\n", "is for launch/distill_student.py, by its key objectives: run that"),
]


@pytest.mark.parametrize(("added", "sentence"), FILES)
def test_file_mistakes_name_their_remedy(
    added: str,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A mistake in a recipe file is refused by a sentence with the file's name."""
    path = tmp_path / "recipe.yaml"
    path.write_text(TEACHER + added, encoding="utf-8")
    found = refusal(TeacherRecipe, "--config", str(path), monkeypatch=monkeypatch, capsys=capsys)
    assert sentence in found.replace(str(path), "FILE")
    assert str(path) in found


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "add --config RECIPE, such as --config launch/recipes/teacher_base.yaml."),
        ("launch/recipes/teacher_base.yaml", "write --config launch/recipes/teacher_base.yaml."),
        ("--config launch/recipes", "launch/recipes is a folder: name a file in it."),
        ("--config techer_base.yaml", "did you mean launch/recipes/teacher_base.yaml?"),
        (
            "--config nowhere.yaml",
            "There is no file nowhere.yaml: correct the path, or take one of",
        ),
        ("--config launch/recipes/student_6x768.yaml", "is for launch/distill_student.py, by its"),
        ("--config launch/recipes/corpus_en.yaml", "is for launch/prepare_data.py, by its key"),
        ("--config launch/recipes/study_base.yaml", "is for launch/study.py, by its keys methods"),
        ("--config", "expected one argument"),
    ],
)
def test_wrong_config_names_the_right_one(
    words: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A missing, misspelt or foreign recipe is refused with the one that was meant."""
    found = refusal(TeacherRecipe, *words.split(), monkeypatch=monkeypatch, capsys=capsys)
    assert sentence in found


@pytest.mark.parametrize("kind", [StudentRecipe, CorpusRecipe])
def test_teacher_recipe_names_its_command(
    kind: type[Options], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A teacher's recipe given to another command is refused with the command that reads it."""
    config = "launch/recipes/teacher_base.yaml"
    found = refusal(kind, "--config", config, monkeypatch=monkeypatch, capsys=capsys)
    assert "is for launch/train_teacher.py, by its key model" in found


@pytest.mark.parametrize(
    "override", ["train.steps=1e5", "optim.lr=1e-4", "run.path=2026-01-31", "train.steps=1_000"]
)
def test_usual_spellings_are_accepted(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers with an exponent, and paths that look like dates, are read as they are meant."""
    path = tmp_path / "recipe.yaml"
    path.write_text(TEACHER, encoding="utf-8")
    run(TeacherRecipe, "--config", str(path), override, monkeypatch=monkeypatch)
