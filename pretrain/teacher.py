"""The teacher as a service: frozen, in evaluation mode, outside the optimizer and ZeRO."""

from pathlib import Path

import torch

from data_prep.errors import UserError
from data_prep.tokenizer import read_tokenizer
from pretrain.batches import Batch
from pretrain.model import Bert, BertShape, Outputs
from pretrain.weights import TrainedModel, load_trained

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Teacher:
    """A trained model that answers batches and never changes."""

    def __init__(self, model: Bert, device: torch.device, precision: str) -> None:
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


def load_teacher(path: Path, tokenizer_fingerprint: str) -> TrainedModel:
    """Load the teacher of a student from its run or export folder.

    Raises:
        UserError: when it was trained with another tokenizer than the student's corpus.
    """
    trained = load_trained(path)
    its_own = trained.facts.get("tokenizer") or read_tokenizer(path).fingerprint
    if its_own != tokenizer_fingerprint:
        raise UserError(
            f"The teacher {path} was trained with tokenizer {its_own}, but the corpus "
            f"was made with {tokenizer_fingerprint}: distil on a corpus prepared with the "
            "teacher's tokenizer."
        )
    return trained
