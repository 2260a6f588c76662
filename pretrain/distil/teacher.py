"""The teacher: a frozen model in evaluation mode, outside the optimizer and ZeRO."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from data_prep.errors import UserError
from data_prep.tokenizers.folder import LoadedTokenizer
from data_prep.tokenizers.foreign.comparison import check_model_tokenizer
from pretrain.data.batch import Batch
from pretrain.distil.teacher_fsdp import (
    full_parameter,
    peak_parameters,
    reset_gather_order,
    shard_layers,
)
from pretrain.model import Bert, Outputs
from pretrain.model.backend import Backend
from pretrain.model.captured_states import NO_CAPTURE, Capture, States
from pretrain.model.compilation import apply_backend
from pretrain.model.foreign.hf_encoder import HfEncoder
from pretrain.model.loading import LocatedModel, locate
from pretrain.monitoring.device_timer import DeviceTimer
from pretrain.train.run_directory import RunDirectory

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Teacher:
    """A trained model for forward passes only.

    Args:
        model: with its weights.
        device: that computes.
        precision: of its weights and outputs.
        backend: kernels and compilation.
        layers: number of layers to keep, from the first; None keeps all, which logits need.
        has_mlm_head: whether its weights include an MLM head.
        name: of it in messages.
        sharded: whether its layers are sharded over the ranks; all ranks must then construct it
            and run the same number of forward passes. See teacher_fsdp.py.
    """

    def __init__(
        self,
        model: Bert | HfEncoder,
        device: torch.device,
        precision: str,
        backend: Backend = Backend(),  # noqa: B008  # frozen
        *,
        layers: int | None = None,
        has_mlm_head: bool = True,
        name: str = "the teacher",
        sharded: bool = False,
    ) -> None:
        self.shape, self.has_mlm_head, self.name = model.shape, has_mlm_head, name
        self.cost_shape = model.cost_shape if isinstance(model, HfEncoder) else model.shape
        self.sharded = sharded
        self.timer = DeviceTimer(device)
        if layers is not None:
            model.keep_layers(layers)
        if isinstance(model, Bert):
            model.detach_unused_pooler()
        _cast(model, _DTYPES[precision])
        model.eval().requires_grad_(False)
        self._model = _placed(model, device, sharded)
        apply_backend(self._model, backend)

    def __call__(self, batch: Batch, capture: Capture = NO_CAPTURE) -> Outputs:
        """Return the outputs of a micro-batch, without dropout or gradients."""
        # Not `inference_mode`: autograd must be able to save the teacher's states for a student.
        with torch.no_grad(), self.timer.running():
            outputs: Outputs = self._model(batch, capture=capture)
        if self.sharded:
            reset_gather_order(self._model)
        return outputs

    def states(self, batch: Batch, capture: Capture, *, timed: bool = True) -> States:
        """Return the captured states, without computing any layer above the highest of them.

        Only a timed forward pass counts as part of a training step.
        """
        with torch.no_grad(), self.timer.running() if timed else nullcontext():
            states = self._model.states(batch, capture)
        if self.sharded:
            reset_gather_order(self._model)
        return states

    @property
    def peak_parameters(self) -> int:
        """Largest number of its parameters on this rank's device at any time."""
        return peak_parameters(self._model) if self.sharded else self._model.count_parameters()

    def check(self, batch: Batch, capture: Capture, needs_logits: bool) -> None:
        """Run two forward passes of one batch; their outputs must be finite and equal (all ranks).

        Raises:
            UserError: for weights or outputs that are not finite, or outputs that differ, as they
                would with dropout.
        """
        self._check_weights()
        first, second = (self._tensors(batch, capture, needs_logits) for _ in range(2))
        for one, other in zip(first, second, strict=True):
            if not torch.isfinite(one).all():
                raise UserError(
                    f"{self.name} gives NaN or infinity in its outputs: compute it in another "
                    "train.precision, or train it again with a lower optim.lr."
                )
            if not torch.equal(one, other):
                raise UserError(
                    f"{self.name} gives different outputs for the same batch: choose "
                    "kernels.block reference and kernels.attention sdpa."
                )
        self.timer.read_ms()

    def _check_weights(self) -> None:
        for name, parameter in self._model.named_parameters():
            if not torch.isfinite(full_parameter(parameter)).all():
                raise UserError(
                    f"{self.name} has NaN or infinity in {name}: take an earlier checkpoint, or "
                    "train it again with a lower optim.lr."
                )

    def _tensors(self, batch: Batch, capture: Capture, needs_logits: bool) -> list[torch.Tensor]:
        """Return all tensors of a forward pass that a student could read."""
        if not needs_logits:
            return _state_tensors(self.states(batch, capture))
        outputs = self(batch, capture)
        return [outputs.mlm_logits_MV, *_state_tensors(outputs.states)]


def _cast(model: Bert | HfEncoder, dtype: torch.dtype) -> None:
    if isinstance(model, HfEncoder):
        model.cast_parameters(dtype)
    else:
        model.to(dtype)


def _placed(model: Bert | HfEncoder, device: torch.device, sharded: bool) -> Bert | HfEncoder:
    if not sharded:
        return model.to(device)
    if isinstance(model, HfEncoder):
        raise UserError(
            f"teacher.sharded gathers the layers of a BERT, but the teacher is of type "
            f"{model.model_type}: leave teacher.sharded out."
        )
    return shard_layers(model, device)


def _state_tensors(states: States) -> list[torch.Tensor]:
    return [*states.hidden.values(), *(x for layer in states.attention.values() for x in layer)]


def locate_teachers(paths: Sequence[Path], tokenizer: LoadedTokenizer) -> list[LocatedModel]:
    """Find the weights of a student's teachers (rank 0, so that all ranks load the same files).

    Raises:
        UserError: when one has another tokenizer than the student's corpus, is a run that has not
            finished, or has another vocabulary size than the first.
    """
    located_models = [_locate(path, tokenizer) for path in paths]
    first = located_models[0].shape
    for path, located in zip(paths, located_models, strict=True):
        if located.shape.vocab_size != first.vocab_size:
            raise UserError(
                f"The teacher {path} has a vocabulary of {located.shape.vocab_size}, but "
                f"{paths[0]} one of {first.vocab_size}: teachers whose predictions are averaged "
                "must have the same vocabulary."
            )
    return located_models


def _locate(path: Path, tokenizer: LoadedTokenizer) -> LocatedModel:
    located = locate(path)
    run = RunDirectory(located.folder)
    if run.status() and not run.is_done:
        # Its next checkpoint would be another teacher.
        raise UserError(
            f"The teacher {path} is {run.status()['state']} at step {run.status()['step']}: wait "
            "until it is done, or publish it as it is and name the export."
        )
    check_model_tokenizer(
        located.folder, located.facts.tokenizer if located.facts else "", tokenizer
    )
    return located
