"""Every ZeRO stage and precision takes the step that plain PyTorch takes in one process."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data_prep.config.loader import load_recipe
from data_prep.corpus.shards import Corpus
from data_prep.tokenizers.folder import load_tokenizer
from launch.train_teacher import teacher_shape
from pretrain.config.run import TeacherRecipe
from pretrain.data.batch_source import BatchSource
from pretrain.model import Bert, initialise
from tests.stories.conftest import ROOT, Command
from tests.stories.train_every_stage import REFUSED, VARIANTS

pytestmark = pytest.mark.story
WORKER = Path(__file__).with_name("train_every_stage.py")
CLIP_NORM = 0.05
# The gradient of a key's bias is 0 but for rounding: softmax ignores what all keys share.
TINY = 1e-4


def test_every_stage_matches_pytorch(
    deepspeed: Command, teacher_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every ZeRO stage and precision takes the step that plain PyTorch takes in one process."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # stories have no GPU
    out = tmp_path / "weights"
    out.mkdir()
    deepspeed(WORKER, teacher_recipe, out)
    before, expected, grad_norm = plain_step(teacher_recipe, tmp_path)
    assert grad_norm > 2 * CLIP_NORM, "the step was meant to be clipped"
    moved = {name: (expected[name] - before[name]).norm() for name in expected}
    for variant in VARIANTS:
        found = load_file(out / f"{variant}.safetensors")
        # Adam's first step does not depend on the scale of a gradient, so the norm is compared too.
        rounding = 1e-4 if "fp32" in variant else 0.05
        assert float(found.pop("grad_norm")) == pytest.approx(grad_norm, rel=rounding), variant
        assert found.keys() == expected.keys()
        # Adam's first step is lr times the sign of the gradient, so rounding shows only where a
        # gradient is almost zero: a few elements in fp32, more in bf16, whose forward pass has
        # 8 bits. A lost shard or a part of the batch counted twice moves whole tensors.
        allowed = 0.02 if "fp32" in variant else 0.2
        for name, tensor in found.items():
            difference = (tensor - expected[name]).norm()
            assert difference <= allowed * moved[name] + TINY, (variant, name, difference)
    for refused in REFUSED:
        assert "fp16 needs a GPU" in (out / f"{refused}.txt").read_text(), refused
    taken = {variant.split()[0] for variant in VARIANTS} | set(REFUSED)
    assert taken == {path.stem for path in (ROOT / "ds_configs").glob("*.json")}


def plain_step(
    recipe_path: Path, tmp_path: Path
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], float]:
    """Take the step by hand: the whole batch at once, mean losses, clip, AdamW."""
    recipe = load_recipe(TeacherRecipe, recipe_path, ["model.dropout=0"])
    tokenizer = load_tokenizer(recipe.tokenizer.path)
    source = BatchSource(
        Corpus.open(recipe.corpus.path),
        tokenizer,
        recipe.mask,
        seed=recipe.train.seed,
        row_tokens=recipe.train.row_tokens,
        cache=tmp_path / "plans",
    )
    train = recipe.train
    (batch,) = source.step(0, train.batch_rows, 0, 1, train.batch_rows)
    shape = teacher_shape(recipe, type("Inputs", (), {"tokenizer": tokenizer}))  # type: ignore[arg-type]
    model = Bert(shape)
    initialise(model, train.seed)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    outputs = model(batch)
    assert outputs.nsp_logits_S2 is not None
    loss = torch.nn.functional.cross_entropy(outputs.mlm_logits_MV, batch.mlm_labels)
    loss = loss + torch.nn.functional.cross_entropy(outputs.nsp_logits_S2, batch.nsp_labels)
    loss.backward()
    grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    groups: list[dict[str, object]] = [{"params": [], "weight_decay": w} for w in (0.01, 0.0)]
    for name, parameter in model.named_parameters():
        plain = name.endswith("bias") or "LayerNorm" in name
        groups[plain]["params"].append(parameter)  # type: ignore[attr-defined]
    torch.optim.AdamW(groups, lr=1e-2, eps=recipe.optim.epsilon).step()
    return before, dict(model.state_dict()), float(grad_norm)
