"""Started by test_memory.py on two ranks: the tensors that an engine of each stage holds.

deepspeed measure_engine_memory.py RECIPE OUT
"""

import gc
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from data_prep.config.loader import load_recipe
from launch.command_line.errors import run_rank
from launch.train_teacher import teacher_shape
from pretrain.config.run import TeacherRecipe
from pretrain.data.setup import open_inputs
from pretrain.distributed import Cluster
from pretrain.losses.mlm_nsp import pretraining_terms
from pretrain.losses.term import normalised_loss
from pretrain.model import Bert, initialise
from pretrain.monitoring.memory_estimate import forecast
from pretrain.train.deepspeed_config import read_deepspeed_config
from pretrain.train.deepspeed_engine import Engine

VARIANTS = "zero0_fp32 zero0_bf16 zero1_fp32 zero1_bf16 zero2_bf16 zero3_bf16".split()
COUNTS = {"masked": 1, "samples": 1, "tokens": 1}
# Freed between a backward pass and the update.
MOMENTARY = ("activations", "work space", "reduction buckets")
BUCKET = 20_000  # negligible beside the weights


def main() -> None:
    # The launcher puts an option of its own in front.
    recipe_path, out = (Path(word) for word in sys.argv[-2:])
    cluster = Cluster.join()
    found = {}
    for variant in VARIANTS:
        overrides = [
            f"deepspeed.config=ds_configs/{variant}.json",
            f"train.precision={variant.split('_')[1]}",
            "model.width=128",
            "model.feed_forward=512",
        ]
        found[variant] = measure(load_recipe(TeacherRecipe, recipe_path, overrides), cluster)
    (out / f"rank_{cluster.rank}.json").write_text(json.dumps(found))
    cluster.leave()


def measure(recipe: TeacherRecipe, cluster: Cluster) -> dict[str, Any]:
    """Return the bytes that are there before the second update, and those of the forecast."""
    inputs = open_inputs(recipe, recipe.run.path / "plans", cluster)
    config = read_deepspeed_config(recipe, cluster.world_size, on_gpu=False)
    config["zero_optimization"]["reduce_bucket_size"] = BUCKET
    others = live_tensors()  # held, so that none of their addresses is reused
    model = Bert(teacher_shape(recipe, inputs))
    initialise(model, recipe.train.seed)
    parts = forecast(recipe, config, model, cluster.world_size)
    engine = Engine(model, recipe, config)
    batches = next(inputs.loader.steps_from(0))
    measured = []
    for _ in range(2):
        for batch in batches:
            engine.backward(normalised_loss(engine(batch, pretraining_terms), COUNTS))
            measured.append(bytes_beside(others))
            engine.step(learning_rate=1e-3)
    kept = {part.name: part.size for part in parts if part.name not in MOMENTARY}
    # The optimizer has had its states since the first update.
    return {"bytes": max(measured[-len(batches) :]), "parts": kept}


def live_tensors() -> list[torch.Tensor]:
    """Return all live tensors, and their gradients."""
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some objects warn when their class is read
        tensors = [x for x in gc.get_objects() if isinstance(x, torch.Tensor)]
    return tensors + [x.grad for x in tensors if x.is_leaf and x.grad is not None]


def bytes_beside(others: list[torch.Tensor]) -> int:
    """Return the size of the tensors that came since, views counted once."""
    known = {x.untyped_storage().data_ptr() for x in others}
    sizes = {s.data_ptr(): s.nbytes() for s in (x.untyped_storage() for x in live_tensors())}
    return sum(size for address, size in sizes.items() if address not in known)


if __name__ == "__main__":
    run_rank(main)
