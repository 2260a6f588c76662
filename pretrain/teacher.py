"""The teacher as a service: frozen, in evaluation mode, outside the optimizer and ZeRO."""

from pathlib import Path

import torch

from data_prep.errors import UserError
from data_prep.tokenizer import read_tokenizer
from pretrain.batch import Batch
from pretrain.model import Bert, BertShape, Outputs
from pretrain.model.compilation import prepare_model
from pretrain.model.execution import Execution
from pretrain.run_directory import RunDirectory
from pretrain.weights import LocatedModel, locate

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Teacher:
    """A trained model that answers batches and never changes."""

    def __init__(
        self,
        model: Bert,
        device: torch.device,
        precision: str,
        execution: Execution = Execution(),  # noqa: B008  # frozen
    ) -> None:
        prepare_model(model, execution)
        self._model = model.to(device=device, dtype=_DTYPES[precision]).eval().requires_grad_(False)

    @property
    def shape(self) -> BertShape:
        """The teacher's shape."""
        return self._model.shape

    def __call__(self, batch: Batch) -> Outputs:
        """Return the teacher's outputs for a micro-batch, without dropout or gradients."""
        with torch.no_grad():
            outputs: Outputs = self._model(batch)
        return outputs


def locate_teacher(path: Path, tokenizer_fingerprint: str) -> LocatedModel:
    """Find the weights of a student's teacher (rank 0, so that all ranks take the same).

    Raises:
        UserError: when it was trained with another tokenizer than the student's corpus, or is
            a run that has not finished: its next checkpoint would be another teacher.
    """
    located = locate(path)
    run = RunDirectory(path)
    if run.status() and not run.is_done:
        raise UserError(
            f"The teacher {path} is {run.status()['state']} at step {run.status()['step']}: wait "
            "until it is done, or publish it as it is and name the export."
        )
    its_own = located.facts.get("tokenizer") or read_tokenizer(path).fingerprint
    if its_own != tokenizer_fingerprint:
        raise UserError(
            f"The teacher {path} was trained with tokenizer {its_own}, but the corpus was made "
            f"with {tokenizer_fingerprint}: distil on a corpus prepared with the teacher's "
            "tokenizer."
        )
    return located
