"""Started by test_zero_stages.py on two ranks: one step in every stage, weights to a file.

deepspeed train_every_stage.py RECIPE OUT
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from data_prep.recipe import load_recipe
from launch.cli import run_rank
from launch.train_teacher import teacher_shape
from pretrain.cluster import Cluster
from pretrain.config import TeacherRecipe
from pretrain.engine import Engine, read_deepspeed_config
from pretrain.inputs import open_inputs
from pretrain.model import Bert, initialise
from pretrain.objectives.term import normalised_loss
from pretrain.run_directory import RunDirectory
from pretrain.tasks import PretrainingTask

# Every stage in fp32 and bf16, and the same global batch cut into other micro-batches.
VARIANTS = [
    *(f"zero{stage}_{precision} micro=2" for stage in range(4) for precision in ("fp32", "bf16")),
    "zero1_fp32 micro=1",
    "zero2_fp32 micro=4",
]


def main() -> None:
    # The launcher puts an option of its own in front.
    recipe_path, out = (Path(word) for word in sys.argv[-2:])
    cluster = Cluster.join()
    for variant in VARIANTS:
        name, micro = variant.split(" micro=")
        overrides = [
            f"deepspeed.config=ds_configs/{name}.json",
            f"train.precision={name.split('_')[1]}",
            f"train.micro_rows={micro}",
            "model.dropout=0",
            "optim.clip_norm=0.05",
        ]
        recipe = load_recipe(TeacherRecipe, recipe_path, overrides)
        weights = one_step(recipe, cluster)
        if cluster.is_main:
            save_file(weights, out / f"{variant}.safetensors")
    cluster.leave()


def one_step(recipe: TeacherRecipe, cluster: Cluster) -> dict[str, torch.Tensor]:
    inputs = open_inputs(recipe, RunDirectory(recipe.run.path), cluster)
    model = Bert(teacher_shape(recipe, inputs))
    initialise(model, recipe.train.seed)
    engine = Engine(model, recipe, read_deepspeed_config(recipe, cluster.world_size, on_gpu=False))
    batches = next(inputs.loader.steps_from(0))
    own = [sum(batch.counts[name] for batch in batches) for name in ("masked", "samples")]
    masked, samples = cluster.sum(own)
    for batch in batches:
        terms = engine(batch, PretrainingTask().terms)
        engine.backward(normalised_loss(terms, {"masked": masked, "samples": samples}))
        engine.step(learning_rate=1e-2)
    return {**engine.full_weights(), "grad_norm": torch.tensor(engine.grad_norm)}


if __name__ == "__main__":
    run_rank(main)
