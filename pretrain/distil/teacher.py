"""The teacher as a service: frozen, in evaluation mode, outside the optimizer and ZeRO."""

from collections.abc import Sequence
from pathlib import Path

import torch

from data_prep.errors import UserError
from data_prep.tokenizers.folder import read_tokenizer
from pretrain.data.batch import Batch
from pretrain.distil.teacher_fsdp import gather, most_held, reset_gather_order, shard_layers
from pretrain.model import Bert, Outputs
from pretrain.model.backend import Backend
from pretrain.model.captured_states import NO_CAPTURE, Capture, States
from pretrain.model.compilation import apply_backend
from pretrain.model.loading import LocatedModel, locate
from pretrain.monitoring.device_timer import DeviceTimer
from pretrain.train.run_directory import RunDirectory

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Teacher:
    """A trained model that answers batches and never changes.

    Args:
        model: with its weights.
        device: that computes.
        precision: of its weights and answers.
        backend: how it is computed.
        layers: that are kept, from the first; None keeps all, which predictions need.
        has_mlm_head: whether it has learned to predict words.
        name: of it in messages.
        sharded: whether each rank keeps a part of its layers; all ranks must then make it, and ask
            it equally often. See `sharding.py`.
    """

    def __init__(
        self,
        model: Bert,
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
        self.sharded = sharded
        self.stopwatch = DeviceTimer(device)
        if layers is not None:
            del model.bert.encoder.layer[layers:]
        model.to(_DTYPES[precision]).eval().requires_grad_(False)
        self._model = shard_layers(model, device) if sharded else model.to(device)
        apply_backend(self._model, backend)

    def __call__(self, batch: Batch, capture: Capture = NO_CAPTURE) -> Outputs:
        """Return the teacher's outputs for a micro-batch, without dropout or gradients."""
        # Not `inference_mode`: a student's backward pass must be able to keep what is compared.
        with torch.no_grad(), self.stopwatch.running():
            outputs: Outputs = self._model(batch, capture=capture)
        if self.sharded:
            reset_gather_order(self._model)
        return outputs

    def states(self, batch: Batch, capture: Capture) -> States:
        """Return states alone; no layer above the highest one asked for is computed."""
        with torch.no_grad(), self.stopwatch.running():
            states = self._model.states(batch, capture)
        if self.sharded:
            reset_gather_order(self._model)
        return states

    @property
    def parameters(self) -> int:
        """How many of its parameters lie on this rank's device, at the most."""
        return most_held(self._model) if self.sharded else self._model.count_parameters()

    def check(self, batch: Batch, capture: Capture, words: bool) -> None:
        """Ask twice about one batch: answers must be the same numbers, and numbers.

        Raises:
            UserError: for weights or answers that are not finite, or that change, as they would
                with dropout.
        """
        for name, parameter in self._model.named_parameters():
            if not torch.isfinite(gather(parameter)).all():
                raise UserError(
                    f"{self.name} holds NaN or infinite numbers in {name}: take an earlier "
                    "checkpoint, or train it again with a lower optim.lr."
                )
        first, second = (self._answers(batch, capture, words) for _ in range(2))
        for one, other in zip(first, second, strict=True):
            if not torch.isfinite(one).all():
                raise UserError(
                    f"{self.name} gives NaN or infinite numbers: compute it in another "
                    "train.precision, or train it again with a lower optim.lr."
                )
            if not torch.equal(one, other):
                raise UserError(
                    f"{self.name} gives two answers to one batch, so it cannot teach: choose "
                    "kernels.block reference and kernels.attention sdpa."
                )
        self.stopwatch.read_ms()

    def _answers(self, batch: Batch, capture: Capture, words: bool) -> list[torch.Tensor]:
        if not words:
            return _tensors(self.states(batch, capture))
        outputs = self(batch, capture)
        return [outputs.mlm_logits_MV, *_tensors(outputs.states)]


def _tensors(states: States) -> list[torch.Tensor]:
    return [*states.hidden.values(), *(x for layer in states.attention.values() for x in layer)]


def locate_teachers(paths: Sequence[Path], tokenizer_fingerprint: str) -> list[LocatedModel]:
    """Find the weights of a student's teachers (rank 0, so that all ranks take the same).

    Raises:
        UserError: when one was trained with another tokenizer than the student's corpus, is a
            run that has not finished, or knows another number of words than the first.
    """
    found = [_locate(path, tokenizer_fingerprint) for path in paths]
    for path, located in zip(paths, found, strict=True):
        if located.shape.vocab_size != found[0].shape.vocab_size:
            raise UserError(
                f"The teacher {path} has a vocabulary of {located.shape.vocab_size}, but "
                f"{paths[0]} one of {found[0].shape.vocab_size}: teachers whose predictions are "
                "averaged must know the same words."
            )
    return found


def _locate(path: Path, tokenizer_fingerprint: str) -> LocatedModel:
    located = locate(path)
    run = RunDirectory(path)
    if run.status() and not run.is_done:
        # Its next checkpoint would be another teacher.
        raise UserError(
            f"The teacher {path} is {run.status()['state']} at step {run.status()['step']}: wait "
            "until it is done, or publish it as it is and name the export."
        )
    stated = located.facts.tokenizer if located.facts else ""
    its_own = stated or read_tokenizer(path).fingerprint
    if its_own != tokenizer_fingerprint:
        raise UserError(
            f"The teacher {path} was trained with tokenizer {its_own}, but the corpus was made "
            f"with {tokenizer_fingerprint}: distil on a corpus prepared with the teacher's "
            "tokenizer."
        )
    return located
