"""Stored tensors of a foreign checkpoint by the names here, with the decoder that is used."""

from collections.abc import Mapping
from pathlib import Path

import torch

from data_prep.errors import UserError
from pretrain.model.foreign.names import BIAS, DECODER, DECODER_BIAS, WORDS, from_hf_name
from pretrain.weights_file import StoredTensor, read_tensors


def renamed(headers: Mapping[str, StoredTensor], path: Path) -> dict[str, StoredTensor]:
    """Return stored tensors by their names here."""
    renamed = {from_hf_name(name): stored for name, stored in headers.items()}
    if len(renamed) < len(headers):
        twice = next(name for name in headers if renamed[from_hf_name(name)].name != name)
        raise UserError(
            f"The weights {path} hold {from_hf_name(twice)} twice, once as {twice}: save the model "
            "again with save_pretrained of transformers."
        )
    return renamed


def resolve_ties(tensors: Mapping[str, StoredTensor], is_tied: bool) -> dict[str, StoredTensor]:
    """Return the tensors with one decoder bias, and with a decoder only where it is not tied.

    As transformers 5: where a file stores both tensors of a tie, they are tied only if they are
    equal; where it stores one of them, that one counts. The decoder reads `decoder.bias`. A model
    that transformers 4 saved has the same bias as `cls.predictions.bias` alone.
    """
    resolved = dict(tensors)
    if DECODER_BIAS in resolved:
        resolved[BIAS] = resolved.pop(DECODER_BIAS)
    if DECODER in resolved:
        if WORDS not in resolved and is_tied:
            resolved[WORDS] = resolved.pop(DECODER)
        elif WORDS in resolved and _are_equal(resolved[WORDS], resolved[DECODER]):
            del resolved[DECODER]
    return resolved


def _are_equal(one: StoredTensor, other: StoredTensor) -> bool:
    if one.shape != other.shape:
        return False
    first, second = (tensor for _, tensor in read_tensors({"one": one, "other": other}))
    return torch.equal(first, second)
