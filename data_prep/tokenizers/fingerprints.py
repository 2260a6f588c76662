"""Fingerprints of tokenizers: of what one does to text, not of the bytes of its files."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from data_prep.manifest import fingerprint
from data_prep.tokenizers.json_files import read_json_object

_PIPELINE = ("normalizer", "pre_tokenizer", "model")
_ADDED = ("id", "content", "special", "normalized", "lstrip", "rstrip", "single_word")


def pipeline_fingerprint(tokenizer: Tokenizer, ids: Mapping[str, int]) -> str:
    """Return the fingerprint of a tokenizer: of what decides the ids of a text.

    Truncation, padding, the decoder, the post-processor and the version of the file are left out,
    and so are settings that are off, because a later version of the library may add such.

    Args:
        tokenizer: with its vocabulary.
        ids: of each role.
    """
    content = json.loads(tokenizer.to_str())
    return fingerprint(
        {
            "pipeline": {part: _normal_form(content[part]) for part in _PIPELINE},
            "added_tokens": [
                _normal_form({key: token.get(key) for key in _ADDED})
                for token in sorted(content["added_tokens"], key=lambda token: int(token["id"]))
            ],
            "roles": dict(ids),
        }
    )


def file_fingerprint(path: Path) -> str:
    """Return the fingerprint that earlier versions gave: of all of a tokenizer.json."""
    return fingerprint(read_json_object(path))


def _normal_form(part: Any) -> Any:
    """Return a description without the settings that are off, with defaults resolved."""
    if isinstance(part, list):
        return [_normal_form(each) for each in part]
    if not isinstance(part, dict):
        return part
    if part.get("type") == "BertNormalizer" and part["strip_accents"] is None:
        part = {**part, "strip_accents": part["lowercase"]}
    # Only settings: a vocabulary maps tokens to ids, and 0 is an id.
    kept = {
        key: value for key, value in part.items() if value not in (None, "") and value is not False
    }
    return {
        key: _normal_vocabulary(value) if key in ("vocab", "merges") else _normal_form(value)
        for key, value in kept.items()
    }


def _normal_vocabulary(entries: Any) -> Any:
    """Return a vocabulary or merges; scores as SentencePiece has them, in 32 bits.

    The library's reader of JSON is off by the last of 64 bits, so a copy has other scores.
    """
    if not isinstance(entries, list):
        return entries
    return [
        [entry[0], _in_32_bits(entry[1])] if isinstance(entry[1], float) else entry
        for entry in entries
    ]


def _in_32_bits(score: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", score))[0])
