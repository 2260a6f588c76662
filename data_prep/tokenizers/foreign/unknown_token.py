"""What a model does with a character outside its vocabulary: [UNK], or a failure in the middle."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from data_prep.errors import UserError

_BYTE_TOKENS = {f"<0x{byte:02X}>" for byte in range(256)}


def check_unknown_token(tokenizer: Tokenizer, origin: Path) -> None:
    """Refuse a model that fails on an unknown character, or drops it without a trace.

    Args:
        tokenizer: whose model is looked at.
        origin: for the message.

    Raises:
        UserError: naming the token that is missing.
    """
    content = json.loads(tokenizer.to_str())
    model = content["model"]
    kind = model["type"]
    if kind == "Unigram":
        known = {token for token, _ in model["vocab"]}
        if model["unk_id"] is None and not _falls_back_to_bytes(model, known):
            raise UserError(
                f"{origin}: its Unigram model has no unknown token (unk_id is null), so the first "
                "character outside its vocabulary would stop the corpus: set model.unk_id to the "
                "index of its unknown token."
            )
        return
    known = set(model["vocab"])
    token = model["unk_token"]
    if token in known:
        return
    if kind == "BPE" and token is None:
        if _is_byte_level(content, known) or _falls_back_to_bytes(model, known):
            return
        raise UserError(
            f"{origin}: its BPE model has no unknown token (unk_token is null), so characters "
            "outside its vocabulary would be dropped without a trace: set model.unk_token."
        )
    raise UserError(
        f"{origin}: the unknown token of its {kind} model, {token!r}, is not in the vocabulary, so "
        "the first unknown word would stop the corpus: set model.unk_token to the token that is."
    )


def _falls_back_to_bytes(model: dict[str, Any], known: set[str]) -> bool:
    return bool(model.get("byte_fallback")) and known >= _BYTE_TOKENS


def _is_byte_level(content: dict[str, Any], known: set[str]) -> bool:
    """Tell whether text reaches the model as bytes, each of which has a token."""
    steps = [*_steps(content["normalizer"]), *_steps(content["pre_tokenizer"])]
    return "ByteLevel" in steps and known >= set(pre_tokenizers.ByteLevel.alphabet())


def _steps(part: dict[str, Any] | None) -> list[str]:
    if part is None:
        return []
    inner = part.get("normalizers") or part.get("pretokenizers") or []
    return [str(part["type"]), *(name for each in inner for name in _steps(each))]
