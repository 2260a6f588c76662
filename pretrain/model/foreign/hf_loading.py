"""Locating and loading what only transformers computes; see hf_encoder.py.

transformers takes seconds to import, so it is imported late.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from data_prep.errors import UserError
from pretrain.model.config import BertShape
from pretrain.model.foreign.hf_config import HF_FAMILIES, ForeignAttention, describe
from pretrain.model.foreign.hf_encoder import ATTENTION, HfEncoder, register_attention
from pretrain.model.foreign.names import current_name
from pretrain.weights_file import StoredTensor

_TRANSFORMS = {"bert": "cls.predictions.transform.dense.weight", "modernbert": "head.dense.weight"}
_DECODERS = ("decoder.bias", "decoder.weight")  # of ModernBERT; its classifiers have `head`, too


def describe_folder(
    folder: Path, model_type: str, layers: int, headers: Mapping[str, StoredTensor]
) -> tuple[BertShape, ForeignAttention]:
    """Return the shape and the attention of a model, compared with the headers of its files.

    Args:
        folder: with config.json.
        model_type: of `HF_FAMILIES`.
        layers: as config.json states.
        headers: of its weights.

    Raises:
        UserError: when transformers cannot open the config, or the weights do not fit it.
    """
    import transformers

    # First of all: a config of transformers lists its layers.
    _check_layers(folder, layers, model_type, headers)
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    # transformers validates configs by classes of several libraries.
    except Exception as error:
        raise UserError(_unreadable(folder, error)) from error
    try:
        with torch.device("meta"):
            model = transformers.AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise UserError(_unreadable(folder, error)) from error
    _check_tensors(folder, model, headers)
    return describe(model_type, config)


def stores_mlm_head(
    model_type: str, config: Mapping[str, Any], headers: Mapping[str, StoredTensor]
) -> bool:
    """Tell whether files hold an MLM head, whose decoder may be tied and not stored.

    Args:
        model_type: of `HF_FAMILIES`.
        config: the content of config.json.
        headers: of its weights.
    """
    if _TRANSFORMS.get(model_type) not in headers:
        return False
    names = [str(name) for name in config.get("architectures") or []]
    is_masked_lm = any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in names)
    return model_type == "bert" or is_masked_lm or any(name in headers for name in _DECODERS)


def load_hf_encoder(
    folder: Path, model_type: str, shape: BertShape, has_mlm_head: bool
) -> HfEncoder:
    """Load a model of transformers in fp32 on the CPU.

    Args:
        folder: with config.json and safetensors; nothing else of it is read.
        model_type: of `HF_FAMILIES`.
        shape: of `describe_folder`.
        has_mlm_head: whether its files hold an MLM head.

    Raises:
        UserError: when the files lack a tensor, or transformers cannot load them.
    """
    import transformers
    from transformers.utils import logging

    register_attention()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    kind = transformers.AutoModelForMaskedLM if has_mlm_head else transformers.AutoModel
    try:
        model, info = kind.from_pretrained(
            folder,
            attn_implementation=ATTENTION,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except Exception as error:
        raise UserError(_unreadable(folder, error)) from error
    if missing := sorted(name for name in info["missing_keys"] if "pooler." not in name):
        raise UserError(
            f"The weights of {folder} do not fit its shape: {len(missing)} tensors are missing, "
            f"such as {missing[0]!r}: fetch them and config.json again, from one model."
        )
    return HfEncoder(model.eval(), model_type, shape, has_mlm_head)


def _check_layers(
    folder: Path, stated: int, model_type: str, headers: Mapping[str, StoredTensor]
) -> None:
    """Compare the number of layers, before a model of as many is made, even without storage."""
    pattern = re.compile(rf"(?:^|\.){re.escape(HF_FAMILIES[model_type])}\.(\d+)\.")
    found = {match[1] for name in headers if (match := pattern.search(name))}
    if len(found) != stated:
        raise UserError(
            f"{folder} has weights of {len(found)} layers, but states {stated}: they are not of "
            "one model; fetch both again."
        )


def _check_tensors(folder: Path, model: Any, headers: Mapping[str, StoredTensor]) -> None:
    """Compare names and shapes of the base model's parameters with those stored."""
    stored = {current_name(name): header for name, header in headers.items()}
    for name, parameter in model.named_parameters():
        header = stored.get(f"{model.base_model_prefix}.{name}", stored.get(name))
        if header is None:
            if name.startswith("pooler."):
                continue
            raise UserError(
                f"The weights of {folder} do not fit its shape: {name!r} is missing; fetch them "
                "and config.json again, from one model."
            )
        if header.shape != tuple(parameter.shape):
            raise UserError(
                f"The weights of {folder} do not fit its shape: {name} is {list(header.shape)}, "
                f"but it should be {list(parameter.shape)}: fetch them and config.json again, from "
                "one model."
            )


def _unreadable(folder: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    return f"transformers cannot load {folder} ({type(error).__name__}: {reason})."
