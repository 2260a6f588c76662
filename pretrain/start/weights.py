"""The weights of a start, copied into a model whose vocabulary, positions or heads may differ."""

import torch

from data_prep.errors import UserError
from pretrain.model import Bert
from pretrain.start.positions import resize_positions
from pretrain.start.vocabulary import VocabularyTransfer

_POSITIONS = "bert.embeddings.position_embeddings.weight"
_MLM_HEAD = "cls.predictions."
# Their first axis is the vocabulary.
_OF_VOCABULARY = (
    "bert.embeddings.word_embeddings.weight",
    "cls.predictions.bias",
    "cls.predictions.decoder.weight",
)
# What a model may have and its start lack, or the other way round.
_HEADS = {
    "the MLM head": "cls.predictions.transform.dense.weight",
    "the NSP head": "cls.seq_relationship.weight",
    "the pooler": "bert.pooler.dense.weight",
}


def copy_weights(
    start: Bert,
    model: Bert,
    *,
    has_mlm_head: bool,
    trained_positions: int,
    transfer: VocabularyTransfer | None,
) -> tuple[list[str], list[str]]:
    """Copy the weights of a start into a model; what the start lacks stays as it was drawn.

    Args:
        start: with its weights.
        model: is changed.
        has_mlm_head: whether that of the start was stored.
        trained_positions: of the start's position embeddings.
        transfer: of the vocabulary, None where it is the same.

    Returns:
        the heads that are new, and those of the start that the model does not have.

    Raises:
        UserError: for a weight that is not finite.
    """
    source = {
        name: tensor
        for name, tensor in start.state_dict().items()
        if has_mlm_head or not name.startswith(_MLM_HEAD)
    }
    target = model.state_dict()
    for name in source.keys() & target.keys():
        _check_finite(name, source[name])
        rows = source[name]
        if transfer is not None and name in _OF_VOCABULARY:
            rows = transfer.apply(rows)
        elif name == _POSITIONS:
            rows = resize_positions(rows, len(target[name]), trained_positions)
        target[name].copy_(rows)
    new = [head for head, name in _HEADS.items() if name in target and name not in source]
    left = [head for head, name in _HEADS.items() if name in source and name not in target]
    return new, left


def _check_finite(name: str, tensor: torch.Tensor) -> None:
    if not torch.isfinite(tensor).all():
        raise UserError(
            f"model.start has NaN or infinity in {name}: take an earlier checkpoint of it, or "
            "another model."
        )
