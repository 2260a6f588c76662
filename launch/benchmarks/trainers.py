"""What trains in the benchmarks of a step: our model on packed rows, transformers' on padded ones.

All take the same step: forward, backward, gradients clipped at norm 1, AdamW in fp32.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch

from launch.benchmarks.batches import Data, add_counts
from pretrain.losses.mlm_nsp import pretraining_terms
from pretrain.losses.term import normalised_loss
from pretrain.model import Bert, BertShape, initialise
from pretrain.model.backend import Backend
from pretrain.model.captured_states import NO_CAPTURE, Capture
from pretrain.model.compilation import apply_backend
from pretrain.model.dropout_rng import dropout_keys
from pretrain.model.hf_conversion import to_hf_config
from pretrain.monitoring.device_timer import DeviceTimer
from pretrain.monitoring.flops import training_flops

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LEARNING_RATE, _CLIP_NORM = 1e-4, 1.0


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all sides share."""

    shape: BertShape  # of the model that is trained
    precision: Precision
    device: torch.device
    backend: Backend  # of ours
    data: Data


class Update:
    """AdamW on fp32 weights, from which those of the model are rounded if they are narrower.

    A weight without a gradient in a step keeps its value.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._weights: list[torch.Tensor] = list(model.parameters())
        self._rounds = self._weights[0].dtype != torch.float32
        self.masters = self._weights
        if self._rounds:
            self.masters = [weight.detach().float() for weight in self._weights]
        on_gpu = self._weights[0].is_cuda
        self._optimizer = torch.optim.AdamW(self.masters, lr=LEARNING_RATE, fused=on_gpu)

    def __call__(self) -> None:
        """Take a step by the accumulated gradients, and reset them."""
        if self._rounds:
            self._widen_gradients()
        torch.nn.utils.clip_grad_norm_(self.masters, _CLIP_NORM)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._rounds:
            with torch.no_grad():
                torch._foreach_copy_(self._weights, self.masters)

    def _widen_gradients(self) -> None:
        # All in one kernel: hundreds of kernels, one a weight, would take as long as a layer does.
        trained = [i for i, weight in enumerate(self._weights) if weight.grad is not None]
        narrow = [weight.grad for weight in self._weights if weight.grad is not None]
        wide = [torch.empty_like(self.masters[index]) for index in trained]
        torch._foreach_copy_(wide, narrow)
        for index, gradient in zip(trained, wide, strict=True):
            self.masters[index].grad, self._weights[index].grad = gradient, None


class PackedTrainer:
    """Our model: packed rows, fused operations, heads at masked tokens; without DeepSpeed.

    Subclasses replace the model, the terms of the loss and the captured states.
    """

    capture: Capture = NO_CAPTURE
    terms: Any = staticmethod(pretraining_terms)
    teacher_timer: DeviceTimer | None = None

    def __init__(self, name: str, setting: Setting) -> None:
        self.name = name
        self.setting = setting
        self.model: Any = self.build_model().to(setting.device, DTYPES[setting.precision])

    def build_model(self) -> Bert:
        """Return the model that is trained, with random weights, in fp32 on the CPU."""
        return build_bert(self.setting.shape, self.setting.backend)

    def step(self, number: int) -> None:
        """Train on one global batch."""
        setting = self.setting
        batches = setting.data.packed[number % len(setting.data.packed)]
        counts = add_counts(batches)
        rows = np.arange(sum(batch.rows for batch in batches)).reshape(len(batches), -1)
        keys = dropout_keys(0, number, rows, setting.shape.layers, setting.device)
        for batch, own_keys in zip(batches, keys, strict=True):
            terms = self.model(batch.to(setting.device), self.terms, own_keys, self.capture)
            self.backward(normalised_loss(terms, counts))
        self.update()

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate the gradients of a micro-batch."""
        loss.backward()  # type: ignore[no-untyped-call]

    @cached_property
    def update(self) -> Callable[[], None]:
        """The optimizer's step, prepared in the first one."""
        return Update(self.model)

    def flops(self, counts: dict[str, int]) -> int | None:
        """Return the operations that these counts need; None where they are not reported."""
        return training_flops(self.setting.shape, counts)


class DeepSpeedTrainer(PackedTrainer):
    """Our model as a run trains it: the engine of `train/deepspeed_engine.py`, one rank, ZeRO-1."""

    def __init__(self, name: str, setting: Setting, recipe: Any) -> None:
        from pretrain.distributed import Cluster
        from pretrain.train.deepspeed_config import read_deepspeed_config
        from pretrain.train.deepspeed_engine import Engine

        self.name, self.setting = name, setting
        Cluster.join()
        config = read_deepspeed_config(recipe, 1, setting.device.type == "cuda")
        self.model: Any = Engine(self.build_model().to(setting.device), recipe, config)
        self.model.set_micro_batches(len(setting.data.packed[0]))

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate the gradients of a micro-batch; the engine's last one updates the weights."""
        self.model.backward(loss)
        self.model.step(LEARNING_RATE)

    def update(self) -> None:
        """Do nothing: `backward` has updated the weights."""


class PaddedTrainer(ABC):
    """A model of transformers on padded rows: SDPA, automatic mixed precision, fp32 weights."""

    teacher_timer: DeviceTimer | None = None

    def __init__(self, name: str, setting: Setting, kind: str) -> None:
        self.name = name
        self.setting = setting
        self.model = build_hf(kind, setting.shape).to(setting.device).train()
        self.trained = torch.nn.ModuleList([self.model])

    def step(self, number: int) -> None:
        """Train on one global batch."""
        device = self.setting.device
        batches = self.setting.data.padded[number % len(self.setting.data.padded)]
        for batch in batches:
            inputs = {k: tensor.to(device, non_blocking=True) for k, tensor in batch.inputs.items()}
            (self.loss(inputs) / len(batches)).backward()  # type: ignore[no-untyped-call]
        self.update()

    @abstractmethod
    def loss(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the mean loss of a micro-batch, a scalar."""

    @cached_property
    def update(self) -> Update:
        """The optimizer's step, prepared in the first one."""
        return Update(self.trained)

    def autocast(self) -> torch.autocast:
        """Return the context of automatic mixed precision."""
        precision = self.setting.precision
        kind = self.setting.device.type
        return torch.autocast(kind, DTYPES[precision], enabled=precision != "fp32")

    def flops(self, counts: dict[str, int]) -> int | None:
        """Return the operations that these counts need; None where they are not reported."""
        return None


class HfPretraining(PaddedTrainer):
    """`BertForPreTraining`: MLM logits of all tokens, and NSP."""

    def __init__(self, name: str, setting: Setting, compiled: bool) -> None:
        super().__init__(name, setting, "BertForPreTraining")
        self._call = torch.compile(self.model, dynamic=False) if compiled else self.model

    def loss(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return its own loss."""
        with self.autocast():
            loss: torch.Tensor = self._call(**inputs).loss
        return loss

    def flops(self, counts: dict[str, int]) -> int | None:
        """Return the operations that these counts need, as of our model."""
        return training_flops(self.setting.shape, counts)


def build_bert(shape: BertShape, backend: Backend, seed: int = 0) -> Bert:
    """Return our model with random weights."""
    model = Bert(shape)
    initialise(model, seed)
    apply_backend(model, backend)
    return model


def build_hf(kind: str, shape: BertShape) -> Any:
    """Return a model of transformers with random weights."""
    import transformers

    # Ours has no dropout inside attention either; with it, flash kernels would do more work.
    fields = to_hf_config(shape) | {"attention_probs_dropout_prob": 0.0}
    torch.manual_seed(shape.layers)
    build: Any = getattr(transformers, kind)._from_config
    options = {"add_pooling_layer": False} if kind == "BertModel" else {}
    return build(transformers.BertConfig(**fields), attn_implementation="sdpa", **options)
