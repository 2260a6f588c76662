"""Started by test_optimizers.py: steps with known gradients, under every partition of the state.

deepspeed train_optimizers.py RECIPE OUT [CHECKPOINT]

With a checkpoint of another number of ranks, only its last step is taken.
"""

import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # DeepSpeed compiles Muon's update, which takes a minute on a CPU and changes nothing here.
    os.environ["TORCHDYNAMO_DISABLE"] = "1"

import torch
from safetensors.torch import save_file
from torch import nn

from data_prep.config.loader import load_recipe
from launch.command_line.errors import run_rank
from pretrain.config.run import TeacherRecipe
from pretrain.distributed import Cluster
from pretrain.train.deepspeed_config import read_deepspeed_config
from pretrain.train.deepspeed_engine import Engine
from pretrain.train.deepspeed_library import convert_to_universal

MICRO_BATCHES = 4  # of a step, over all ranks
STEPS = 3
RATE = 0.02
CLIP_NORM = 3.0
LAMB = ["lamb zero0_fp32", "lamb zero1_fp32", "lamb zero2_fp32", "lamb zero0_bf16",
        "lamb zero1_bf16", "lamb zero2_bf16"]  # fmt: skip
ADAMW = ["adamw zero0_fp32", "adamw zero1_bf16", "adamw zero2_bf16"]
MUON = ["muon zero0_fp32", "muon zero0_bf16", "muon zero1_bf16"]
RESUMED = ["lamb zero0_fp32", "lamb zero1_bf16", "lamb zero2_fp32", "muon zero1_bf16",
           "adamw zero1_fp32"]  # fmt: skip
CONVERTED = ["lamb zero1_bf16", "lamb zero2_fp32"]
POISONED = ["lamb zero1_bf16", "adamw zero2_bf16", "adamw zero1_fp32"]


class Sums(nn.Module):
    """Tensors with names as in BERT; the loss is their sum weighted with known numbers.

    The gradient is those numbers, exactly in bf16 as well: they have few bits, as the first
    weights have. Sizes are odd, so that tensors lie across ranks and the last part has padding.
    """

    def __init__(self) -> None:
        super().__init__()
        layers = nn.ModuleList([nn.Linear(12, 6), nn.Linear(6, 12), nn.LayerNorm(12)])
        self.bert = nn.ModuleDict(
            {
                "embeddings": nn.Embedding(7, 5),
                "encoder": nn.ModuleDict({"layer": layers}),
                "pooler": nn.Linear(12, 3),
            }
        )
        for index, parameter in enumerate(self.parameters()):
            parameter.data = draw(parameter.shape, index) / 4

    def forward(self, micro_batch: int, poison: float = 1.0) -> torch.Tensor:
        weighted = [
            (parameter.float() * gradient_of(parameter.shape, index, micro_batch)).sum()
            for index, parameter in enumerate(self.parameters())
        ]
        return torch.stack(weighted).sum() * poison


def draw(shape: torch.Size, seed: int) -> torch.Tensor:
    """Return numbers with few bits, between -2 and 2 and never 0."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(-16, 16, shape, generator=generator).float()
    return (steps + 0.5) / 8


def gradient_of(shape: torch.Size, index: int, micro_batch: int) -> torch.Tensor:
    """Return the gradient of a parameter from one of all micro-batches of the run."""
    return draw(shape, 1000 * (micro_batch + 1) + index)


@dataclass
class Case:
    """An optimizer in one of DeepSpeed's files, ready to take the known steps."""

    recipe_path: Path
    variant: str
    cluster: Cluster

    def engine(self, universal: bool = False) -> Engine:
        name, config = self.variant.split()
        ranks = self.cluster.world_size
        overrides = [
            f"optim.name={name}",
            f"deepspeed.config=ds_configs/{config}.json",
            f"train.precision={config.split('_')[1]}",
            f"train.batch_rows={MICRO_BATCHES}",
            "train.micro_rows=1",
            f"optim.clip_norm={CLIP_NORM}",
            f"optim.lr={RATE}",
            *([f"optim.muon_lr={2 * RATE}"] if name == "muon" else []),
        ]
        recipe = load_recipe(TeacherRecipe, self.recipe_path, overrides)
        model: Any = Sums()
        return Engine(model, recipe, read_deepspeed_config(recipe, ranks, False), universal)

    def run(self, engine: Engine, first: int, last: int, poison: float = 1.0) -> Engine:
        ranks = self.cluster.world_size
        for step in range(first, last):
            for index in range(self.cluster.rank, MICRO_BATCHES, ranks):
                number: Any = step * MICRO_BATCHES + index
                # The module takes two arguments where BERT takes a batch.
                loss: Any = engine._engine(number, poison)
                engine.backward(loss)
                engine.step(RATE / (step + 1))
        return engine

    def write(self, engine: Engine, folder: Path) -> None:
        weights = engine.gather_fp32_weights()
        if self.cluster.is_main:
            figures = {"norm": torch.tensor(engine.grad_norm),
                       "skipped": torch.tensor(engine.skipped_steps)}  # fmt: skip
            folder.mkdir(parents=True, exist_ok=True)
            save_file({**weights, **figures}, folder / f"{self.variant}.safetensors")


def main() -> None:
    paths = [Path(word) for word in sys.argv if not word.startswith("--local_rank")][1:]
    recipe, out, *checkpoint = paths
    cluster = Cluster.join()
    if checkpoint:
        take_the_last_step_of(checkpoint[0], recipe, out, cluster)
    else:
        take_all_steps(recipe, out, cluster)
    cluster.leave()


def take_all_steps(recipe: Path, out: Path, cluster: Cluster) -> None:
    for variant in [*LAMB, *ADAMW, *MUON]:
        case = Case(recipe, variant, cluster)
        case.write(case.run(case.engine(), 0, STEPS), out / "straight")
    for variant in RESUMED:
        case = Case(recipe, variant, cluster)
        engine = case.run(case.engine(), 0, STEPS - 1)
        engine.save(out / "saved", variant, {"marker": "saved"})
        case.write(case.run(engine, STEPS - 1, STEPS), out / "went on")
        resumed = case.engine()
        assert resumed.load(out / "saved", variant)["marker"] == "saved"
        case.write(case.run(resumed, STEPS - 1, STEPS), out / "resumed")
    for variant in CONVERTED:
        case = Case(recipe, variant, cluster)
        saved, universal = out / "saved" / variant, out / "saved" / f"{variant}.universal"
        cluster.on_main(partial(convert_to_universal, saved, universal))
        take_the_last_step_of(universal, recipe, out, cluster)
    for variant in POISONED:
        case = Case(recipe, variant, cluster)
        case.write(case.run(case.engine(), 0, 1, poison=float("nan")), out / "poisoned")


def take_the_last_step_of(checkpoint: Path, recipe: Path, out: Path, cluster: Cluster) -> None:
    case = Case(recipe, checkpoint.stem, cluster)
    engine = case.engine(universal=True)
    engine.load(checkpoint.parent, checkpoint.name)
    ranks = f"converted for {cluster.world_size}"
    case.write(case.run(engine, STEPS - 1, STEPS), out / ranks)


if __name__ == "__main__":
    run_rank(main)
