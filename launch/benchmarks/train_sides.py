"""The sides of the training benchmark: ours, and BERT of transformers in the usual ways.

All take the same step: forward, backward, gradients clipped at norm 1, AdamW in fp32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from launch.benchmarks.train_data import Data
from pretrain.losses.mlm_nsp import pretraining_terms
from pretrain.losses.term import normalised_loss
from pretrain.model import Bert, BertShape, initialise
from pretrain.model.backend import Backend
from pretrain.model.compilation import apply_backend
from pretrain.model.dropout_rng import dropout_keys
from pretrain.model.hf_conversion import to_hf_config

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_LEARNING_RATE, _CLIP_NORM = 1e-4, 1.0


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all sides share."""

    shape: BertShape
    precision: Precision
    device: torch.device
    backend: Backend  # of ours
    data: Data


class Update:
    """AdamW on fp32 weights, from which those of the model are rounded if they are narrower.

    A weight that got no gradient in a step stays as it is.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._weights: list[torch.Tensor] = list(model.parameters())
        self._rounds = self._weights[0].dtype != torch.float32
        self._masters = self._weights
        if self._rounds:
            self._masters = [weight.detach().float() for weight in self._weights]
        on_gpu = self._weights[0].is_cuda
        self._optimizer = torch.optim.AdamW(self._masters, lr=_LEARNING_RATE, fused=on_gpu)

    def __call__(self) -> None:
        """Take a step by the gradients that have been added up, and forget them."""
        if self._rounds:
            self._widen_gradients()
        torch.nn.utils.clip_grad_norm_(self._masters, _CLIP_NORM)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._rounds:
            with torch.no_grad():
                torch._foreach_copy_(self._weights, self._masters)

    def _widen_gradients(self) -> None:
        # All in one kernel: one each, hundreds of them, would take as long as a layer does.
        learned = [place for place, weight in enumerate(self._weights) if weight.grad is not None]
        narrow = [weight.grad for weight in self._weights if weight.grad is not None]
        wide = [torch.empty_like(self._masters[place]) for place in learned]
        torch._foreach_copy_(wide, narrow)
        for place, gradient in zip(learned, wide, strict=True):
            self._masters[place].grad, self._weights[place].grad = gradient, None


class Ours:
    """Packed rows, fused operations, heads at masked places; without DeepSpeed around it."""

    def __init__(self, name: str, setting: Setting) -> None:
        self.name = name
        self._setting = setting
        self._model = Bert(setting.shape)
        initialise(self._model, seed=0)
        apply_backend(self._model, setting.backend)
        self._model.to(setting.device, DTYPES[setting.precision])
        self._update = Update(self._model)

    def step(self, number: int) -> None:
        """Train on one global batch."""
        setting = self._setting
        batches = setting.data.packed[number % len(setting.data.packed)]
        counts = add_counts(batches)
        keys = dropout_keys(0, number, 0, len(batches), setting.shape.layers, setting.device)
        for batch, own_keys in zip(batches, keys, strict=True):
            terms: Any = self._model(batch.to(setting.device), pretraining_terms, own_keys)
            normalised_loss(terms, counts).backward()  # type: ignore[no-untyped-call]
        self._update()


class HuggingFace:
    """`BertForPreTraining` on padded rows: SDPA, automatic mixed precision, fp32 weights."""

    def __init__(self, name: str, setting: Setting, compiled: bool) -> None:
        from transformers import BertConfig, BertForPreTraining

        self.name = name
        self._setting = setting
        # Ours has no dropout inside attention either; with it, flash kernels would do more work.
        fields = to_hf_config(setting.shape) | {"attention_probs_dropout_prob": 0.0}
        config = BertConfig(**fields)
        torch.manual_seed(0)
        build: Any = BertForPreTraining._from_config
        model = build(config, attn_implementation="sdpa")
        self._model = model.to(setting.device).train()
        self._update = Update(self._model)
        self._call = torch.compile(self._model, dynamic=False) if compiled else self._model

    def step(self, number: int) -> None:
        """Train on one global batch."""
        setting = self._setting
        batches = setting.data.padded[number % len(setting.data.padded)]
        narrow = setting.precision != "fp32"
        for batch in batches:
            inputs = {
                name: tensor.to(setting.device, non_blocking=True)
                for name, tensor in batch.inputs.items()
            }
            with torch.autocast(setting.device.type, DTYPES[setting.precision], enabled=narrow):
                loss = self._call(**inputs).loss
            (loss / len(batches)).backward()
        self._update()


class UnderDeepSpeed:
    """Ours as a run trains it: the engine of `train/deepspeed_engine.py`, one rank, ZeRO-1."""

    def __init__(self, name: str, setting: Setting, recipe: Any) -> None:
        from pretrain.distributed import Cluster
        from pretrain.train.deepspeed_config import read_deepspeed_config
        from pretrain.train.deepspeed_engine import Engine

        self.name = name
        self._setting = setting
        Cluster.join()
        model = Bert(setting.shape)
        initialise(model, seed=0)
        apply_backend(model, setting.backend)
        on_gpu = setting.device.type == "cuda"
        config = read_deepspeed_config(recipe, 1, on_gpu)
        self._engine = Engine(model.to(setting.device), recipe, config)

    def step(self, number: int) -> None:
        """Train on one global batch."""
        setting = self._setting
        batches = setting.data.packed[number % len(setting.data.packed)]
        counts = add_counts(batches)
        keys = dropout_keys(0, number, 0, len(batches), setting.shape.layers, setting.device)
        self._engine.set_micro_batches(len(batches))
        for batch, own_keys in zip(batches, keys, strict=True):
            terms: Any = self._engine(batch.to(setting.device), pretraining_terms, own_keys)
            self._engine.backward(normalised_loss(terms, counts))
            self._engine.step(_LEARNING_RATE)


def add_counts(batches: Sequence[Any]) -> dict[str, int]:
    """Return the counts of all batches of a step."""
    return {name: sum(batch.counts[name] for batch in batches) for name in batches[0].counts}
