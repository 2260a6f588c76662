"""The tokenizer's folder: written, loaded, verified.

The folder is a Hugging Face fast tokenizer, which `AutoTokenizer.from_pretrained` opens, with a
manifest beside it. It is written and read with `tokenizers` alone: preparing text needs neither
transformers nor torch.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, processors

from data_prep.errors import UserError
from data_prep.manifest import find_damage, fingerprint, read_manifest, write_json, write_manifest

ROLES = ("pad", "unk", "cls", "sep", "mask")
BERT_NAMES = {role: f"[{role.upper()}]" for role in ROLES}
SPECIAL_TOKENS = tuple(BERT_NAMES.values())

_BACKEND = "tokenizer.json"
_CONFIG = "tokenizer_config.json"
_ROLE_MAP = "special_tokens_map.json"
_VOCABULARY = "vocab.txt"
# BERT's maximum position; `AutoTokenizer` truncates longer texts there.
_MODEL_MAX_LENGTH = 512
_UNUSED = re.compile(r"\[unused\d+\]")


@dataclass(frozen=True, kw_only=True)
class LoadedTokenizer:
    """A verified tokenizer; `backend` neither truncates nor pads."""

    path: Path
    backend: Tokenizer
    fingerprint: str
    vocab_size: int
    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int

    @cached_property
    def ordinary_ids(self) -> npt.NDArray[np.int64]:
        """The ids that text can produce: neither special nor `[unusedN]`, ascending.

        Random replacements are drawn from these.
        """
        added = self.backend.get_added_tokens_decoder()
        special = {index for index, token in added.items() if token.special}
        special |= {self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id}
        vocabulary = self.backend.get_vocab(with_added_tokens=True)
        unused = {index for token, index in vocabulary.items() if _UNUSED.fullmatch(token)}
        return np.array(sorted(set(vocabulary.values()) - special - unused), dtype=np.int64)


def save_tokenizer(
    tokenizer: Tokenizer,
    directory: Path,
    kind: str,
    *,
    names: Mapping[str, str] = BERT_NAMES,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write a tokenizer as a Hugging Face folder, the manifest last.

    Args:
        tokenizer: with normalizer, post-processor and decoder set.
        directory: is created; files of these names are replaced.
        kind: the value of `tokenizer.kind` it was made with, for the manifest.
        names: the special token of each role.
        facts: further entries of the manifest, such as the options it was trained with.

    Raises:
        UserError: when a special token is not in the vocabulary.
    """
    ids = special_ids(tokenizer, names, directory)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    files = [_BACKEND, _CONFIG, _ROLE_MAP]
    tokenizer.save(str(directory / _BACKEND))
    role_map = {f"{role}_token": name for role, name in names.items()}
    write_json(directory / _ROLE_MAP, role_map)
    write_json(directory / _CONFIG, _config(tokenizer) | role_map)
    if _is_wordpiece(tokenizer):
        files.append(_VOCABULARY)
        _write_vocabulary(directory / _VOCABULARY, tokenizer)
    about = {
        "kind": kind,
        "vocab_size": _vocab_size(tokenizer),
        "lowercase": _lowers(tokenizer),
        "fingerprint": _fingerprint(directory / _BACKEND),
        "special_ids": ids,
    }
    write_manifest(directory, {**about, **(facts or {})}, files)


def load_tokenizer(path: Path) -> LoadedTokenizer:
    """Open a tokenizer folder after comparing every byte with its manifest.

    Raises:
        UserError: when the folder is not complete or has changed since it was made.
    """
    remedy = "make it with launch/prepare_data.py, or correct tokenizer.path"
    manifest = read_manifest(path, "tokenizer", remedy)
    if damage := find_damage(path, manifest, hashes=True):
        raise UserError(
            f"The tokenizer {path} does not match its manifest: {damage}; restore it, or remove "
            "the folder and make it again."
        )
    loaded = read_tokenizer(path)
    if loaded.fingerprint != manifest.get("fingerprint"):
        raise UserError(
            f"The tokenizer {path} has the fingerprint {loaded.fingerprint}, its manifest "
            f"has {manifest.get('fingerprint')}: {remedy}."
        )
    return loaded


def read_tokenizer(path: Path) -> LoadedTokenizer:
    """Open any Hugging Face fast tokenizer folder, such as that of an exported model.

    Raises:
        UserError: when it is not one, or lacks a special token.
    """
    backend = read_backend(path / _BACKEND)
    ids = {
        f"{role}_id": index for role, index in special_ids(backend, role_names(path), path).items()
    }
    return LoadedTokenizer(
        path=path,
        backend=backend,
        fingerprint=_fingerprint(path / _BACKEND),
        vocab_size=_vocab_size(backend),
        **ids,
    )


def read_backend(path: Path) -> Tokenizer:
    """Read a tokenizer.json, with truncation and padding off.

    Raises:
        UserError: when the file is missing or is not a tokenizer.
    """
    if not path.is_file():
        raise UserError(f"There is no {path}: give the folder of a Hugging Face fast tokenizer.")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # The Rust library raises a bare Exception for whatever it cannot read.
    except Exception as error:
        raise UserError(f"{path} is not a fast tokenizer that can be read ({error}).") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def special_ids(tokenizer: Tokenizer, names: Mapping[str, str], origin: Path) -> dict[str, int]:
    """Return the id of each role's special token.

    Raises:
        UserError: naming the first one that the vocabulary lacks.
    """
    ids = {role: tokenizer.token_to_id(names[role]) for role in ROLES}
    if missing := [names[role] for role, index in ids.items() if index is None]:
        raise UserError(
            f"The vocabulary of {origin} has no {', '.join(missing)}: BERT needs "
            f"{', '.join(names[role] for role in ROLES)}."
        )
    return {role: index for role, index in ids.items() if index is not None}


def add_bert_roles(tokenizer: Tokenizer) -> None:
    """Declare BERT's special tokens, which the vocabulary has, and put them around encoded text."""
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    ids = special_ids(tokenizer, BERT_NAMES, Path("vocabulary"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["cls"]), ("[SEP]", ids["sep"])],
    )


def role_names(folder: Path) -> dict[str, str]:
    """Return the special token of each role, as a Hugging Face folder names them.

    Roles that the folder does not mention have BERT's names.
    """
    names = dict(BERT_NAMES)
    for path in (folder / _ROLE_MAP, folder / _CONFIG):
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            for role in ROLES:
                token = content.get(f"{role}_token")
                token = token.get("content") if isinstance(token, dict) else token
                names[role] = token or names[role]
    return names


def _config(tokenizer: Tokenizer) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model_max_length": _MODEL_MAX_LENGTH,
        # Whatever the algorithm, the model is a BERT, which takes segment ids.
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    # BertTokenizer rebuilds its pipeline from these; any other is loaded from tokenizer.json.
    if not _is_wordpiece(tokenizer):
        return {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    normalizer = _part(tokenizer, "normalizer")
    return {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": normalizer["lowercase"],
        "strip_accents": normalizer["strip_accents"],
        "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
        **config,
    }


def _is_wordpiece(tokenizer: Tokenizer) -> bool:
    """Tell whether this is BERT's own pipeline, which vocab.txt describes completely."""
    return (
        _part(tokenizer, "model").get("type") == "WordPiece"
        and _part(tokenizer, "normalizer").get("type") == "BertNormalizer"
        and _part(tokenizer, "pre_tokenizer").get("type") == "BertPreTokenizer"
    )


def _lowers(tokenizer: Tokenizer) -> bool:
    # Computed, not read from the description: SentencePiece folds case in a compiled table.
    return tokenizer.normalizer is not None and tokenizer.normalizer.normalize_str("A") == "a"


def _part(tokenizer: Tokenizer, name: str) -> dict[str, Any]:
    """Return the description of one part of the pipeline, empty where it is not used."""
    part: dict[str, Any] | None = json.loads(tokenizer.to_str())[name]
    return part or {}


def _vocab_size(tokenizer: Tokenizer) -> int:
    # Ids may have gaps in a foreign tokenizer; the embedding must hold the largest.
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def _write_vocabulary(path: Path, tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8", newline="\n")


def _fingerprint(path: Path) -> str:
    return fingerprint(json.loads(path.read_text(encoding="utf-8")))
