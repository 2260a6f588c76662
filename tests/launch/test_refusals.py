"""Bad input to the training commands: one sentence, exit code 2, and nothing left behind."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from data_prep.manifest import MANIFEST, write_manifest
from launch import distill_student, train_teacher
from pretrain.config.run import TeacherRecipe, identity_of
from pretrain.export.huggingface import FACTS
from pretrain.model.loading import WEIGHTS
from tests.launch.conftest import Refuse


def test_missing_corpus_is_refused(refuse: Refuse, recipe: Path) -> None:
    """A corpus folder that does not exist is refused with the command that makes it."""
    sentence = refuse(train_teacher, recipe, "corpus.path=nowhere")
    assert "The corpus nowhere has no manifest.json" in sentence
    assert "launch/prepare_data.py" in sentence


def test_changed_corpus_is_refused(
    refuse: Refuse, recipe: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    """A corpus whose files differ from its manifest is refused by the name of the file."""
    changed = tmp_path / "changed"
    shutil.copytree(tiny_corpus, changed)
    tokens = changed / "train_00000.tokens.bin"
    content = bytearray(tokens.read_bytes())
    content[0] ^= 1
    tokens.write_bytes(content)
    sentence = refuse(train_teacher, recipe, f"corpus.path={changed}")
    assert "train_00000.tokens.bin have changed" in sentence

    tokens.write_bytes(bytes(content[:-2]))
    sentence = refuse(train_teacher, recipe, f"corpus.path={changed}", "corpus.verify=sizes")
    assert f"{len(content) - 2} bytes instead of {len(content)}" in sentence


def test_foreign_tokenizer_is_refused(
    refuse: Refuse, recipe: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    """A tokenizer with another fingerprint than the corpus's is refused with both."""
    other = tmp_path / "other"
    shutil.copytree(tiny_corpus, other)
    manifest = json.loads((other / MANIFEST).read_text(encoding="utf-8"))
    names = list(manifest.pop("files"))
    write_manifest(other, {**manifest, "tokenizer": "f" * 16}, names)
    sentence = refuse(train_teacher, recipe, f"corpus.path={other}")
    assert "is not the one that made the corpus" in sentence
    assert "f" * 16 in sentence


def test_misspelt_key_suggests_nearest(refuse: Refuse, recipe: Path) -> None:
    """A misspelt key is refused with the nearest name."""
    sentence = refuse(train_teacher, recipe, "train.bach_rows=8")
    assert "Unknown key 'train.bach_rows'" in sentence
    assert "did you mean 'train.batch_rows'?" in sentence


def test_indivisible_batch_is_refused(refuse: Refuse, recipe: Path) -> None:
    """A batch that does not divide over micro-batches and ranks is refused."""
    sentence = refuse(train_teacher, recipe, "train.micro_rows=3")
    assert "train.batch_rows 8 is not divisible by train.micro_rows 3 times 1 rank(s)" in sentence
    assert "choose a multiple of 3" in sentence


def test_small_corpus_is_refused(refuse: Refuse, recipe: Path) -> None:
    """A corpus with fewer rows than one batch is refused with both numbers."""
    sentence = refuse(train_teacher, recipe, "train.batch_rows=4096", "train.micro_rows=8")
    assert "rows of 64 tokens, fewer than one batch of train.batch_rows 4096" in sentence


def test_other_world_size_is_refused(refuse: Refuse, recipe: Path) -> None:
    """Another number of ranks than run.world_size is refused."""
    sentence = refuse(train_teacher, recipe, "run.world_size=8")
    assert "expects 8 rank(s), but the launcher started 1" in sentence


def test_fp16_without_gpu_is_refused(
    refuse: Refuse, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fp16 on a machine without a GPU is refused."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = "deepspeed.config=ds_configs/zero1_fp16.json"
    sentence = refuse(train_teacher, recipe, "train.precision=fp16", config)
    assert "fp16 needs a GPU" in sentence


def test_contradicting_precision_is_refused(refuse: Refuse, recipe: Path) -> None:
    """A precision that the DeepSpeed JSON contradicts is refused with both values."""
    sentence = refuse(train_teacher, recipe, "train.precision=bf16")
    assert "zero1_fp32.json computes in fp32, but the recipe's train.precision is bf16" in sentence


def test_number_stated_twice_is_refused(refuse: Refuse, recipe: Path, tmp_path: Path) -> None:
    """A number in both the recipe and the DeepSpeed JSON is refused with both files."""
    stated = tmp_path / "stated.json"
    stated.write_text(json.dumps({"train_batch_size": 64, "zero_optimization": {"stage": 1}}))
    sentence = refuse(train_teacher, recipe, f"deepspeed.config={stated}")
    assert "has train_batch_size 64, but the recipe's train.batch_rows is 8" in sentence


def test_rows_beyond_positions_are_refused(refuse: Refuse, recipe: Path) -> None:
    """Rows longer than model.positions are refused."""
    sentence = refuse(train_teacher, recipe, "train.row_tokens=128")
    assert "train.row_tokens 128 exceeds model.positions 64" in sentence


def test_other_runs_folder_is_untouched(refuse: Refuse, recipe: Path, tmp_path: Path) -> None:
    """A run folder of another configuration is refused and left as it is."""
    run = tmp_path / "run"
    run.mkdir()
    started = TeacherRecipe.model_validate(yaml.safe_load(recipe.read_text(encoding="utf-8")))
    config = run / "config.yaml"
    config.write_text(yaml.safe_dump({"identity": identity_of(started)}), encoding="utf-8")
    before = config.read_bytes()
    sentence = refuse(train_teacher, recipe, "optim.lr=0.5", keeps_run=True)
    assert "was started with optim.lr 0.0001, not 0.5" in sentence
    assert [path.name for path in run.iterdir()] == ["config.yaml"]
    assert config.read_bytes() == before


def test_model_as_run_folder_is_refused(
    refuse: Refuse, recipe: Path, student_recipe: Path, published_teacher: Path
) -> None:
    """Neither a teacher nor a student is trained into the folder of a model."""
    before = {path.name for path in published_teacher.iterdir()}
    for script, path in ((train_teacher, recipe), (distill_student, student_recipe)):
        sentence = refuse(script, path, f"run.path={published_teacher}")
        assert f"run.path {published_teacher} is not a run folder" in sentence
        assert f"model.start={published_teacher}" in sentence
    assert {path.name for path in published_teacher.iterdir()} == before


def test_too_many_student_layers_are_refused(refuse: Refuse, student_recipe: Path) -> None:
    """More student layers to copy than the teacher has are refused."""
    sentence = refuse(distill_student, student_recipe, "student.init=[0,1,1]")
    assert "has 3 layers to copy from its teacher, but the teacher has 2" in sentence


def test_missing_teacher_layer_is_refused(refuse: Refuse, student_recipe: Path) -> None:
    """An index in student.init beyond the teacher's layers is refused."""
    sentence = refuse(distill_student, student_recipe, "student.init=[5]")
    assert "names teacher layer 5, but the teacher has layers 0 to 1" in sentence


def test_missing_teacher_is_refused(refuse: Refuse, student_recipe: Path) -> None:
    """A teacher path without a model is refused."""
    sentence = refuse(distill_student, student_recipe, "teacher.path=./runs/nowhere")
    assert "runs/nowhere is neither a run folder with a checkpoint nor an exported" in sentence
    assert "train the model first, or correct the path" in sentence


def test_unknown_hub_name_is_refused(
    refuse: Refuse, student_recipe: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A teacher that is neither a folder nor in the cache of a hub out of reach is refused."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    sentence = refuse(distill_student, student_recipe, "teacher.path=nowhere")
    assert f"no folder nowhere, it is not in the hub's cache {tmp_path}, and the hub is" in sentence
    assert "switched off (HF_HUB_OFFLINE): correct the path, or download it" in sentence


def test_teacher_of_other_tokenizer_is_refused(
    refuse: Refuse, student_recipe: Path, published_teacher: Path
) -> None:
    """A teacher trained with another tokenizer is refused with its fingerprint."""
    (published_teacher / FACTS).write_text(json.dumps({"tokenizer": "0" * 16}), encoding="utf-8")
    sentence = refuse(distill_student, student_recipe)
    assert f"{published_teacher} has the tokenizer {'0' * 16}, but the corpus was" in sentence
    assert "prepare the corpus with tokenizer.kind=existing tokenizer.vocabulary=" in sentence


def test_rows_beyond_teacher_positions_are_refused(refuse: Refuse, student_recipe: Path) -> None:
    """Rows longer than the teacher's positions are refused."""
    sentence = refuse(distill_student, student_recipe, "train.row_tokens=128")
    assert "train.row_tokens 128 exceeds the teacher's 64 positions" in sentence


def test_zero_weights_are_refused(refuse: Refuse, student_recipe: Path) -> None:
    """Objectives whose weights are all 0 are refused."""
    idle = "objectives=[{kind: hard_mlm, weight: 0}]"
    assert "nothing is trained" in refuse(distill_student, student_recipe, idle)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objectives=[{kind: hidden_mse, teacher_layer: 3}]"], "teacher has layers 0 to 2"),
        (["objectives=[{kind: relations, heads: 5}]"], "5 heads, which do not divide"),
        (
            ["student.width=16", "objectives=[{kind: hidden_cosine, projection: false}]"],
            "states of width 16 with the teacher's 32",
        ),
        (["student.width=64"], "student.width is 64, more than the teacher's 32"),
        (["student.width=18"], "width 18 is not divisible by its 4 heads"),
        (
            ["student.width=16", "student.heads=2", "objectives=[{kind: attention_scores}]"],
            "student has 2 heads and the teacher 4",
        ),
        (["stages=[{steps: 3, objectives: [{kind: hard_mlm}]}]"], "have 3 steps together"),
        (["teacher.precision=bf16"], "Unknown key 'teacher.precision'"),
        (["objectives=[{kind: atention_scores}]"], "did you mean 'attention_scores'?"),
        (["objectives=[{kind: soft_targets, temprature: 2}]"], "did you mean 'temperature'?"),
        (
            ["objectives=[{kind: soft_targets, temperature: .inf}]"],
            "temperature is inf on the command line, but must be a finite number",
        ),
        (
            ["objectives=[{kind: soft_targets, temperature: 0}]"],
            "objectives.0.temperature is 0 on the command line, but must be greater than 0",
        ),
        (
            ["stages=[{steps: 4, objectives: [{kind: hidden_mse, teacher_layer: 7}]}]"],
            "names teacher_layer 7, but the teacher has layers 0 to 2",
        ),
        (
            ["objectives=[{kind: hard_mlm, schedule: {to: 0}}]"],
            "all weights are 0 in the last step of a stage, so nothing is trained: give",
        ),
        (["student.init=[-1, 0]"], "names teacher layer -1, but the teacher has layers 0 to 1"),
        (["teacher.cache=nowhere"], "resume writing it, with launch/write_teacher_cache.py"),
        (
            ["teacher.path=null", "teacher.paths=[a, b]", "objectives=[{kind: relations}]"],
            "share no layers for relations: use soft_targets",
        ),
    ],
)
def test_unfit_students_are_refused(
    refuse: Refuse, student_recipe: Path, overrides: list[str], message: str
) -> None:
    """Objectives, widths, heads and layers that do not fit the teacher are refused."""
    assert message in refuse(distill_student, student_recipe, *overrides)


def test_small_vocabulary_teacher_is_refused(
    refuse: Refuse, student_recipe: Path, published_teacher: Path
) -> None:
    """A teacher with fewer ids than the tokenizer is refused with both numbers."""
    weights = load_file(published_teacher / WEIGHTS)
    for name, tensor in weights.items():
        if tensor.shape[0] == 201:
            weights[name] = tensor[:150].clone()
    save_file(weights, published_teacher / WEIGHTS)
    path = published_teacher / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"vocab_size": 150}
    path.write_text(json.dumps(config), encoding="utf-8")
    sentence = refuse(distill_student, student_recipe)
    assert "has a vocabulary of 150 tokens, but the tokenizer" in sentence and "has 201" in sentence


def test_teacher_without_mlm_head_is_refused(
    refuse: Refuse, student_recipe: Path, published_teacher: Path
) -> None:
    """Soft targets of a teacher without an MLM head are refused."""
    weights = load_file(published_teacher / WEIGHTS)
    layers = {name: tensor for name, tensor in weights.items() if not name.startswith("cls.")}
    save_file(layers, published_teacher / WEIGHTS)
    assert "has no MLM head" in refuse(distill_student, student_recipe)


def test_teacher_with_nan_is_refused(
    refuse: Refuse, student_recipe: Path, published_teacher: Path
) -> None:
    """A teacher whose weights hold NaN is refused by the tensor's name."""
    weights = load_file(published_teacher / WEIGHTS)
    weights["bert.encoder.layer.0.output.dense.bias"][3] = float("nan")
    save_file(weights, published_teacher / WEIGHTS)
    sentence = refuse(distill_student, student_recipe)
    assert "has NaN or infinity in bert.encoder.layer.0.output.dense.bias" in sentence


def test_pickled_teacher_is_refused(
    refuse: Refuse, student_recipe: Path, published_teacher: Path
) -> None:
    """A teacher with pickled weights is refused."""
    (published_teacher / WEIGHTS).rename(published_teacher / "pytorch_model.bin")
    sentence = refuse(distill_student, student_recipe)
    assert "has its weights in pytorch_model.bin" in sentence


def test_training_teacher_is_refused(
    refuse: Refuse, student_recipe: Path, published_teacher: Path
) -> None:
    """A teacher that is still training is refused with its step."""
    status = {"state": "running", "step": 7}
    (published_teacher / "status.json").write_text(json.dumps(status), encoding="utf-8")
    sentence = refuse(distill_student, student_recipe)
    assert "is running at step 7" in sentence
    assert "publish it as it is" in sentence


def test_misshapen_teacher_is_refused(
    refuse: Refuse, student_recipe: Path, published_teacher: Path
) -> None:
    """A teacher whose weights have another shape than its config is refused with both."""
    path = published_teacher / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"intermediate_size": 65}
    path.write_text(json.dumps(config), encoding="utf-8")
    sentence = refuse(distill_student, student_recipe)
    assert f"The weights of {published_teacher} do not fit its shape: " in sentence
    assert "is [64, 32], but it should be [65, 32]: fetch its weights and config.json" in sentence
