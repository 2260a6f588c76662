"""Parity: plain transformers computes the logits, and the pooler's output, of the run's model."""

from pathlib import Path

import torch

from data_prep.errors import UserError
from pretrain.data.batch import Batch
from pretrain.data.dummy_batch import dummy_batch
from pretrain.export.hf_loading import load_plain
from pretrain.model import Bert, Outputs

# fp32 sums in another order differ by about 1e-6 at logits of about 10; a wrong weight by 1.
_TOLERANCE = 1e-4


def check_parity(folder: Path, model: Bert, has_heads: bool = True) -> None:
    """Refuse a folder from which transformers computes other outputs than the model's.

    Hidden states are compared where the folder has no heads.

    Raises:
        UserError: naming the output that differs.
    """
    row_tokens = min(16, model.shape.positions)
    batch = dummy_batch(model.shape.vocab_size, rows=2, row_tokens=row_tokens)
    model.eval()
    with torch.no_grad():
        ours: Outputs = model(batch)
    for name, difference in _compare(folder, model, ours, batch, has_heads).items():
        if not difference < _TOLERANCE:
            raise UserError(
                f"Plain transformers computes other {name} outputs from the export (by up to "
                f"{difference:.2g}), so it was not published: report this with config.yaml."
            )


def _compare(
    folder: Path, model: Bert, ours: Outputs, batch: Batch, has_heads: bool
) -> dict[str, float]:
    """Return the largest difference of each kind of output from plain transformers'."""
    inputs = {
        "input_ids": batch.input_ids.view(-1, batch.row_tokens),
    }
    if model.shape.token_types:
        inputs["token_type_ids"] = batch.token_types.view(-1, batch.row_tokens)
    with torch.no_grad():
        encoded = load_plain(folder, "AutoModel")(**inputs)
        hidden_ND = encoded.last_hidden_state.flatten(0, 1)
        differences = {"hidden": _largest(hidden_ND, ours.hidden_ND)}
        if has_heads:
            plain = load_plain(folder, "AutoModelForMaskedLM")(**inputs).logits
            differences["MLM"] = _largest(plain.flatten(0, 1), ours.mlm_logits_MV)
        if has_heads and ours.nsp_logits_S2 is not None:
            both = load_plain(folder, "AutoModelForPreTraining")(**inputs)
            difference = _largest(both.prediction_logits.flatten(0, 1), ours.mlm_logits_MV)
            differences["MLM"] = max(differences["MLM"], difference)
            differences["NSP"] = _largest(both.seq_relationship_logits, ours.nsp_logits_S2)
        if model.shape.has_pooler:
            cls_SD = ours.hidden_ND.index_select(0, batch.cls_positions)
            differences["pooler"] = _largest(encoded.pooler_output, model.bert.pooler(cls_SD))
    return differences


def _largest(theirs: torch.Tensor, ours: torch.Tensor) -> float:
    return float((theirs - ours).abs().max())
