"""Recipes of runs: impossible values are refused by name, and some keys are the identity."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.config.keys import dotted_keys
from data_prep.config.loader import load_recipe
from data_prep.errors import UserError
from pretrain.config.run import RunRecipe, TeacherRecipe, identity_of, with_current_keys
from pretrain.distil.config import StudentRecipe

SHARED = {
    "run": {"path": "runs/a"},
    "corpus": {"path": "corpus"},
    "tokenizer": {"path": "tokenizer"},
    "train": {"steps": 100, "batch_rows": 8, "micro_rows": 4},
}
TREES: dict[type[RunRecipe], dict[str, Any]] = {
    TeacherRecipe: {**SHARED, "model": {"positions": 512}},
    StudentRecipe: {**SHARED, "teacher": {"path": "runs/teacher"}},
}
# Another value for every key: those that may change while a run goes on, and all others.
FREE = {
    "run.path": "runs/b",
    "run.world_size": "4",
    "corpus.path": "moved",
    "corpus.verify": "sizes",
    "tokenizer.path": "moved",
    "teacher.path": "moved",
    "teacher.sharded": "true",
    "model.vocabulary": "transfer",
    "train.micro_rows": "2",
    "train.max_minutes": "10",
    "train.activation_checkpointing": "3",
    "validation.every_steps": "7",
    "validation.rows": "7",
    "checkpoint.every_steps": "7",
    "checkpoint.keep": "7",
    "log.every_steps": "7",
    "loader.workers": "3",
    "loader.prefetch": "7",
    "kernels.block": "compiled",
    "kernels.head": "triton",
    "kernels.attention": "sdpa",
    "kernels.flash": "FA3",
    "kernels.compile": "false",
    "deepspeed.config": "ds_configs/zero2_fp32.json",
}
FIXED = {
    "train.steps": "200",
    "train.seed": "1",
    "train.batch_rows": "16",
    "train.row_tokens": "64",
    "train.precision": "bf16",
    "train.phases": "[{steps: 60}, {steps: 40, row_tokens: 256, batch_rows: 4}]",
    "train.ramp": "{from_rows: 4, steps: 10, stages: 1}",
    "train.tf32": "true",
    "train.budget_minutes": "60",
    "samples.pairs": "none",
    "samples.short_share": "0.0",
    "mask.policy": "spans",
    "mask.rate_end": "0.3",
    "mask.bidirectional": "true",
    "mask.chinese_words": "true",
    "mask.frequency_power": "0.5",
    "mask.position_power": "1",
    "mask.sparse_count": "3",
    "mask.allowed_tokens": "tokens.txt",
    "mask.rate": "0.2",
    "mask.as_mask": "0.7",
    "mask.as_random": "0.2",
    "optim.name": "lamb",
    "optim.lr": "2e-4",
    "optim.muon_lr": "0.01",
    "optim.muon_momentum": "0.9",
    "optim.schedule": "cosine",
    "optim.warmup_share": "0.1",
    "optim.decay_from": "start",
    "optim.decay_steps": "20",
    "optim.power": "1",
    "optim.end_share": "0.1",
    "optim.warmup_steps": "5",
    "optim.weight_decay": "0.1",
    "optim.beta1": "0.8",
    "optim.beta2": "0.98",
    "optim.epsilon": "1e-8",
    "optim.clip_norm": "0.5",
    "model.layers": "3",
    "model.width": "24",
    "model.heads": "6",
    "model.feed_forward": "64",
    "model.positions": "256",
    "model.dropout": "0.0",
    "model.norm": "pre",
    "teacher.cache": "elsewhere",
    "student.layers": "2",
    "student.width": "64",
    "student.heads": "4",
    "student.feed_forward": "128",
    "student.positions": "128",
    "student.init": "random",
    "student.format": "distilbert",
    "objectives": "[{kind: hard_mlm}]",
    "stages": "[{steps: 60, objectives: [{kind: relations}]}, "
    "{steps: 40, objectives: [{kind: hard_mlm, weight: 2}]}]",
}
# Keys that serve one choice alone are refused beside any other.
BESIDE = {
    "optim.muon_lr": ["optim.name=muon"],
    "optim.muon_momentum": ["optim.name=muon"],
    "optim.warmup_share": ["optim.schedule=budget", "train.budget_minutes=9"],
    "optim.decay_steps": ["optim.schedule=warmup_stable_decay"],
    "optim.power": ["optim.schedule=polynomial"],
    "model.vocabulary": ["model.start=elsewhere"],
}
# A shape is another word for four other keys, a start leaves them open, and several teachers come
# instead of one: they have tests of their own.
OTHER = ("model.shape", "model.start", "teacher.paths")
KEYS = [(kind, key) for kind in TREES for key in dotted_keys(kind) if key not in OTHER]


def load(kind: type[RunRecipe], folder: Path, *overrides: str) -> RunRecipe:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(TREES[kind]))
    return load_recipe(kind, path, overrides)


@pytest.mark.parametrize(("kind", "key"), KEYS, ids=lambda value: getattr(value, "__name__", value))
def test_identity_has_fixed_keys(tmp_path: Path, kind: type[RunRecipe], key: str) -> None:
    """A key is part of the identity unless it may change while a run goes on."""
    beside = BESIDE.get(key, [])
    before = identity_of(load(kind, tmp_path, *beside))
    after = identity_of(load(kind, tmp_path, *beside, f"{key}={(FREE | FIXED)[key]}"))
    different = {name for name in before if before[name] != after[name]}
    assert before.keys() == after.keys()
    assert different == (set() if key in FREE else {key})


def test_start_leaves_shape_open(tmp_path: Path) -> None:
    """A start is part of the identity, and the keys of a shape are what the recipe says of them."""
    found = identity_of(load(TeacherRecipe, tmp_path, "model.start=bert", "model.layers=3"))
    assert (found["model.start"], found["model.layers"]) == ("bert", 3)
    moved = identity_of(load(TeacherRecipe, tmp_path, "model.start=/home/a/bert"))
    assert moved["model.start"] == "bert", "cards show no folders of a machine"
    assert {found[f"model.{key}"] for key in ("width", "dropout", "norm")} == {None}


def test_identity_ignores_phase_micro_rows(tmp_path: Path) -> None:
    """The micro-batch of a phase may change."""
    one, other = (
        identity_of(
            load(TeacherRecipe, tmp_path, f"train.phases=[{{steps: 100, micro_rows: {m}}}]")
        )
        for m in (1, 2)
    )
    assert one == other


SIZES = {
    "tiny": (2, 128, 2, 512),
    "mini": (4, 256, 4, 1024),
    "small": (4, 512, 8, 2048),
    "medium": (8, 512, 8, 2048),
    "base": (12, 768, 12, 3072),
    "large": (24, 1024, 16, 4096),
}


@pytest.mark.parametrize("shape", SIZES)
def test_published_shape_equals_its_keys(tmp_path: Path, shape: str) -> None:
    """A published shape is the same as the four keys that it stands for."""
    keys = ("layers", "width", "heads", "feed_forward")
    spelt = [f"model.{key}={n}" for key, n in zip(keys, SIZES[shape], strict=True)]
    by_name, by_keys = (
        load(TeacherRecipe, tmp_path, *words) for words in ([f"model.shape={shape}"], spelt)
    )
    assert identity_of(by_name) == identity_of(by_keys)
    assert isinstance(by_name, TeacherRecipe)
    assert [getattr(by_name.model, key) for key in keys] == list(SIZES[shape])


def test_explicit_key_overrides_shape(tmp_path: Path) -> None:
    """An explicit key comes before the shape."""
    recipe = load(TeacherRecipe, tmp_path, "model.shape=mini", "model.layers=6")
    assert isinstance(recipe, TeacherRecipe)
    assert (recipe.model.layers, recipe.model.width) == (6, 256)


@pytest.mark.parametrize(("written", "meant"), [("true", True), ("1", 1), ("false", False)])
def test_activation_checkpointing_values(tmp_path: Path, written: str, meant: bool | int) -> None:
    """Activation checkpointing is true, false or a number of layers, under its old key too."""
    for key in ("activation_checkpointing", "recompute"):  # the latter in older recipes
        recipe = load(TeacherRecipe, tmp_path, f"train.{key}={written}")
        found = recipe.train.activation_checkpointing
        assert found == meant and type(found) is type(meant)


def test_identity_is_plain_json(tmp_path: Path) -> None:
    """An identity has values that JSON has."""
    for kind in TREES:
        plain = (str, int, float, bool, list, type(None))
        assert all(isinstance(value, plain) for value in identity_of(load(kind, tmp_path)).values())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim.warmup_steps=100"], r"warmup_steps 100 must be below train\.steps 100"),
        (
            ["optim.warmup_steps=60", "train.phases=[{steps: 60}, {steps: 40, lr: 1e-3}]"],
            r"warmup_steps 60 must be below the first step with an lr of its own, 60",
        ),
        (
            [
                "optim.schedule=warmup_stable_decay",
                "optim.warmup_steps=90",
                "optim.decay_steps=11",
            ],
            r"90 and .* 11 are more than .* 100",
        ),
        (["optim.power=2"], r"power serves schedule polynomial alone, but schedule is linear"),
        (
            ["optim.decay_from=start", "optim.schedule=warmup_stable_decay"],
            r"decay_from start .* but schedule is warmup_stable_decay",
        ),
        (["optim.muon_lr=0.1"], r"muon_lr serves name muon alone, but name is adamw"),
        (["optim.schedule=budget"], r"budget needs train\.budget_minutes"),
        (
            ["optim.schedule=budget", "train.budget_minutes=9", "optim.warmup_steps=5"],
            r"rises by warmup_share and ends at 0: leave out warmup_steps",
        ),
        (["train.tf32=true", "train.precision=bf16"], r"tf32 is a way to compute in fp32, not in"),
        (
            ["train.ramp={from_rows: 3, steps: 9, stages: 1}"],
            r"from 3 rows in 1 stages does not lead to 8",
        ),
        (
            ["train.ramp={from_rows: 2, steps: 9, stages: 4}"],
            r"from 2 rows in 4 stages does not lead to 8",
        ),
        (
            ["train.ramp={from_rows: 2, steps: 100, stages: 2}"],
            r"ramp of 100 steps .* end within the first 100 steps",
        ),
        (
            ["train.phases=[{steps: 99}, {steps: 1, warmup_steps: 1}]"],
            r"warmup_steps 1 need a schedule of their own: give lr",
        ),
        (
            ["train.phases=[{steps: 95}, {steps: 5, lr: 0.1, warmup_steps: 5}]"],
            r"phase 1 has warmup_steps 5, which must be below its steps 5",
        ),
        (
            ["model.heads=7"],
            r"model\.heads=7 of the command line: width 768 is not divisible by 7 heads",
        ),
        (["model.shape=huge"], r"model\.shape is 'huge' on the command line.* large\."),
        (["model.norm=none"], r"model\.norm is 'none' .* one of post, pre"),
        (["train.activation_checkpointing=-1"], r"train\.activation_checkpointing"),
        (["kernels.block=eager"], r"kernels\.block is 'eager' .* triton\."),
        (["mask.as_mask=0.95"], r"as_mask 0\.95 and as_random 0\.1 add up to more than 1"),
        (["train.row_tokens=1024"], r"row_tokens 1024 exceeds model\.positions 512"),
        (
            ["train.phases=[{steps: 50}, {steps: 50, row_tokens: 600}]"],
            r"row_tokens 600 exceeds model\.positions 512",
        ),
        (["train.phases=[{steps: 50}]"], r"have 50 steps together, but train\.steps is 100"),
        (["train.phases=[{row_tokens: 64}]"], r"train\.phases\.0.*either steps or a share"),
        (["train.phases=[{steps: 50}, {share: 0.5}]"], r"steps to all phases, or a share to all"),
        (["train.phases=[{share: 0.5}, {share: 0.4}]"], r"have 90 steps together"),
        (["mask.policy=words"], r"mask\.policy is 'words' .* whole_word"),
        (["mask.rate_end=1"], r"mask\.rate_end is 1 .* less than 1\."),
        (["train.row_tokens=8"], r"train\.row_tokens is 8 .* 16 or more"),
        (["train.steps=0"], r"train\.steps is 0 .* 1 or more"),
        (["train.precision=fp8"], r"train\.precision is 'fp8' .* one of fp32, bf16, fp16"),
        (["mask.rate=1"], r"mask\.rate is 1 .* less than 1\."),
        (["train.batch_row=8"], r"Unknown key 'train\.batch_row' .* 'train\.batch_rows'\?"),
    ],
)
def test_impossible_teacher_recipe_is_refused(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    """An impossible value is refused in one line that names the key."""
    with pytest.raises(UserError, match=message) as refusal:
        load(TeacherRecipe, tmp_path, *overrides)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["student.layers=every"], r"student\.layers"),
        (["model.layers=6"], "Unknown key 'model'"),
        (["teacher.path=null"], "teacher in .*: give path for one teacher, or paths for several"),
    ],
)
def test_impossible_student_recipe_is_refused(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    """An impossible value is refused in one line that names the key."""
    with pytest.raises(UserError, match=message):
        load(StudentRecipe, tmp_path, *overrides)


def test_stored_identity_takes_current_keys() -> None:
    """An identity of an earlier version compares equal under the names of today."""
    stored = {"train.seed": 1, "teacher.signal": None, "train.recompute": True}
    assert with_current_keys(stored) == {
        "train.seed": 1,
        "teacher.cache": None,
        "train.activation_checkpointing": True,
        "optim.decay_from": "warmup",
    }
