"""What trains in the benchmarks of a step: our model on packed rows, transformers' on padded ones.

All take the same step: forward, backward, gradients clipped at norm 1, AdamW in fp32.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from launch.benchmarks.batches import Data, PaddedBatch, add_counts
from launch.benchmarks.device import DTYPES, Trainer
from pretrain.config.run import TeacherRecipe
from pretrain.data.batch import Batch
from pretrain.losses.term import normalised_loss
from pretrain.model import Bert, BertShape, initialise
from pretrain.model.backend import Backend
from pretrain.model.compilation import apply_backend
from pretrain.model.dropout_rng import dropout_keys
from pretrain.model.hf_conversion import to_hf_config
from pretrain.monitoring.flops import StepFlops
from pretrain.train.task import Task

LEARNING_RATE, _CLIP_NORM = 1e-4, 1.0
Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all sides share."""

    shape: BertShape  # of the model that is trained
    precision: Literal["fp32", "bf16", "fp16"]
    device: torch.device
    backend: Backend  # of ours
    data: Data


class Update:
    """AdamW on fp32 weights, from which those of a model are rounded if they are narrower.

    A weight without a gradient in a step keeps its value.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._weights: list[torch.Tensor] = list(model.parameters())
        self._narrow = self._weights[0].dtype != torch.float32
        self.masters = [w.detach().float() if self._narrow else w for w in self._weights]
        on_gpu = self._weights[0].is_cuda
        self._optimizer = torch.optim.AdamW(self.masters, lr=LEARNING_RATE, fused=on_gpu)

    def __call__(self) -> None:
        """Take a step by the accumulated gradients, and reset them."""
        if self._narrow:
            self._widen_gradients()
        torch.nn.utils.clip_grad_norm_(self.masters, _CLIP_NORM)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._narrow:
            with torch.no_grad():
                torch._foreach_copy_(self._weights, self.masters)

    def _widen_gradients(self) -> None:
        # All in one kernel: hundreds of kernels, one a weight, would take as long as a layer does.
        pairs = list(zip(self._weights, self.masters, strict=True))
        trained = [(weight, master) for weight, master in pairs if weight.grad is not None]
        wide = [torch.empty_like(master) for _, master in trained]
        torch._foreach_copy_(
            wide, [weight.grad for weight, _ in trained if weight.grad is not None]
        )
        for (weight, master), gradient in zip(trained, wide, strict=True):
            master.grad, weight.grad = gradient, None


def packed_trainer(
    name: str, setting: Setting, model: Bert, task: Task, deepspeed: TeacherRecipe | None = None
) -> Trainer:
    """Return our model and a task of a run: packed rows, fused operations.

    With a recipe, DeepSpeed's engine trains it as in a run, one rank, ZeRO-1.
    """
    device, layers, spec = setting.device, setting.shape.layers, task.at(0)
    apply_backend(model, setting.backend)
    engine: Any = model.to(device) if deepspeed else model.to(device, DTYPES[setting.precision])

    def losses(batches: Sequence[Batch], number: int) -> Iterator[torch.Tensor]:
        counts = add_counts(batches)
        rows = np.arange(sum(batch.rows for batch in batches)).reshape(len(batches), -1)
        keys = dropout_keys(0, number, rows, layers, device)
        for batch, own_keys in zip(batches, keys, strict=True):
            terms = engine(batch.to(device), spec.terms, own_keys, spec.capture)
            yield normalised_loss(terms, counts)

    def flops(counts: dict[str, int]) -> int:
        passes = spec.teacher_passes
        if passes and not any(teacher.has_mlm_head for teacher in passes):
            counts = {**counts, "masked": 0}  # no logits of the student either
        return StepFlops(trained=setting.shape).of_step(counts, passes)

    trainer = Trainer(
        name=name,
        steps=setting.data.packed,
        losses=losses,
        update=lambda: None,
        teacher_ms=task.teacher_ms,
        flops=flops,
    )
    if deepspeed:
        engine = _start_engine(model, deepspeed, setting)
        # Its last micro-batch updates the weights.
        trainer.backward = lambda loss: (engine.backward(loss), engine.step(LEARNING_RATE))
    else:
        trainer.update = Update(model)
    return trainer


def _start_engine(model: Bert, recipe: TeacherRecipe, setting: Setting) -> Any:
    from pretrain.distributed import Cluster
    from pretrain.train.deepspeed_config import read_deepspeed_config
    from pretrain.train.deepspeed_engine import Engine

    Cluster.join()
    config = read_deepspeed_config(recipe, 1, setting.device.type == "cuda")
    engine = Engine(model, recipe, config)
    engine.set_micro_batches(len(setting.data.packed[0]))
    return engine


def padded_trainer(
    name: str, setting: Setting, model: torch.nn.Module, loss: Callable[[Inputs], torch.Tensor]
) -> Trainer:
    """Return a model of transformers on padded rows, with fp32 weights.

    Args:
        name: of its row.
        setting: its device and batches.
        model: on the device.
        loss: the mean loss of a micro-batch, a scalar.
    """

    def losses(batches: Sequence[PaddedBatch], number: int) -> Iterator[torch.Tensor]:
        for batch in batches:
            inputs = {k: v.to(setting.device, non_blocking=True) for k, v in batch.inputs.items()}
            yield loss(inputs) / len(batches)

    return Trainer(
        name=name, steps=setting.data.padded, losses=losses, update=Update(model.train())
    )


def autocast(setting: Setting) -> torch.autocast:
    """Return the context of automatic mixed precision."""
    dtype, enabled = DTYPES[setting.precision], setting.precision != "fp32"
    return torch.autocast(setting.device.type, dtype, enabled=enabled)


def build_bert(shape: BertShape, seed: int = 0) -> Bert:
    """Return our model with random weights."""
    model = Bert(shape)
    initialise(model, seed)
    return model


def build_hf(kind: str, shape: BertShape) -> Any:
    """Return a model of transformers with random weights and SDPA."""
    import transformers

    # Ours has no dropout inside attention either; with it, flash kernels would do more work.
    fields = to_hf_config(shape) | {"attention_probs_dropout_prob": 0.0}
    torch.manual_seed(shape.layers)
    build: Any = getattr(transformers, kind)._from_config
    options = {"add_pooling_layer": False} if kind == "BertModel" else {}
    return build(transformers.BertConfig(**fields), attn_implementation="sdpa", **options)
