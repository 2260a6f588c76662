"""Started by test_zero_stages.py on two ranks: one step in every stage, weights to a file.

deepspeed train_every_stage.py RECIPE OUT
"""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from data_prep.config.loader import load_recipe
from data_prep.errors import UserError
from launch.command_line.errors import run_rank
from launch.train_teacher import teacher_shape
from pretrain.config.run import TeacherRecipe
from pretrain.data.setup import open_inputs
from pretrain.distributed import Cluster
from pretrain.losses.term import normalised_loss
from pretrain.model import Bert, initialise
from pretrain.model.backend import choose_backend
from pretrain.model.compilation import apply_backend
from pretrain.train.deepspeed_config import read_deepspeed_config
from pretrain.train.deepspeed_engine import Engine
from pretrain.train.task import PretrainingTask

# Every file in fp32 and bf16, the same global batch in other micro-batches, activation
# checkpointing, and ZeRO-3 that partitions everything: by default it leaves weights as small as
# these whole. There the (interpreted) Triton kernels must receive gathered weights.
VARIANTS = [
    *(f"zero{stage}_{precision} micro=2" for stage in range(4) for precision in ("fp32", "bf16")),
    *(f"zero{stage}_offload_{p} micro=2" for stage in (2, 3) for p in ("fp32", "bf16")),
    "zero1_fp32 micro=1",
    "zero2_fp32 micro=4",
    "zero2_offload_bf16 micro=4",
    "zero1_fp32 micro=2 checkpointing",
    "zero3_fp32 micro=2 partitioned",
    "zero3_fp32 micro=2 partitioned triton",
    "zero3_fp32 micro=2 partitioned checkpointing",
]
REFUSED = [f"zero{stage}_fp16" for stage in range(4)]  # on a CPU


def main() -> None:
    # The launcher puts an option of its own in front.
    recipe_path, out = (Path(word) for word in sys.argv[-2:])
    cluster = Cluster.join()
    for variant in VARIANTS:
        weights = one_step(read_recipe(recipe_path, variant, out), cluster)
        if cluster.is_main:
            save_file(weights, out / f"{variant}.safetensors")
    for name in REFUSED:
        try:
            recipe = read_recipe(recipe_path, f"{name} micro=2", out)
            read_deepspeed_config(recipe, cluster.world_size, False)
        except UserError as error:
            (out / f"{name}.txt").write_text(str(error))
    cluster.leave()


def read_recipe(path: Path, variant: str, out: Path) -> TeacherRecipe:
    name, micro, *extras = variant.split()
    config = Path(f"ds_configs/{name}.json")
    overrides = [
        f"deepspeed.config={partitioned(config, out) if 'partitioned' in extras else config}",
        f"train.precision={name.split('_')[-1]}",
        f"train.micro_rows={micro.removeprefix('micro=')}",
        f"kernels.block={'triton' if 'triton' in extras else 'auto'}",
        f"kernels.head={'triton' if 'triton' in extras else 'auto'}",
        f"train.activation_checkpointing={'true' if 'checkpointing' in extras else 'false'}",
        "model.dropout=0",
        "optim.clip_norm=0.05",
    ]
    return load_recipe(TeacherRecipe, path, overrides)


def partitioned(config: Path, out: Path) -> Path:
    """Return a copy of a ZeRO-3 file under which the smallest weights are partitioned as well."""
    tree = json.loads(config.read_text(encoding="utf-8"))
    tree["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    path = out / f"rank{os.environ['RANK']}.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    return path


def one_step(recipe: TeacherRecipe, cluster: Cluster) -> dict[str, torch.Tensor]:
    inputs = open_inputs(recipe, recipe.run.path / "plans", cluster)
    model = Bert(teacher_shape(recipe, inputs))
    initialise(model, recipe.train.seed)
    cpu = cluster.device
    apply_backend(model, choose_backend(recipe.kernels, recipe.train, model.shape, cpu))
    engine = Engine(model, recipe, read_deepspeed_config(recipe, cluster.world_size, on_gpu=False))
    batches = next(inputs.loader.steps_from(0))
    own = [sum(batch.counts[name] for batch in batches) for name in ("masked", "samples")]
    masked, samples = cluster.sum(own)
    for batch in batches:
        terms = engine(batch, PretrainingTask().terms)
        engine.backward(normalised_loss(terms, {"masked": masked, "samples": samples}))
        engine.step(learning_rate=1e-2)
    return {**engine.gather_fp32_weights(), "grad_norm": torch.tensor(engine.grad_norm)}


if __name__ == "__main__":
    run_rank(main)
