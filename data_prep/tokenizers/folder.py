"""The tokenizer's folder: written, loaded, verified.

The folder is a Hugging Face fast tokenizer, which `AutoTokenizer.from_pretrained` opens, with a
manifest beside it. It is written and read with `tokenizers` alone: preparing text needs neither
transformers nor torch.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from data_prep.errors import UserError
from data_prep.manifest import find_damage, read_manifest, write_json, write_manifest
from data_prep.tokenizers.fingerprints import file_fingerprint, pipeline_fingerprint
from data_prep.tokenizers.json_files import read_json_object, read_text
from data_prep.tokenizers.roles import BERT_NAMES, CONFIG, ROLE_MAP, role_names, special_ids

BACKEND = "tokenizer.json"
_VOCABULARY = "vocab.txt"
MAX_WORD_CHARS = 100  # BERT's WordPiece makes [UNK] of a longer word
# BERT's maximum position; `AutoTokenizer` truncates longer texts there.
_MODEL_MAX_LENGTH = 512
_UNUSED = re.compile(r"\[unused\d+\]")


@dataclass(frozen=True, kw_only=True)
class LoadedTokenizer:
    """A verified tokenizer; `backend` neither truncates nor pads.

    Attributes:
        path: of its folder.
        backend: the library's tokenizer.
        fingerprint: what corpora and runs record.
        vocab_size: ids, gaps included.
        other_fingerprints: those of the same tokenizer in corpora and runs of other versions.
        made_now: whether this process made it.
    """

    path: Path
    backend: Tokenizer
    fingerprint: str
    other_fingerprints: frozenset[str] = frozenset()
    made_now: bool = False
    vocab_size: int
    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int

    def is_recorded_as(self, fingerprint: str) -> bool:
        """Tell whether a fingerprint, of this or an earlier version, is that of this tokenizer."""
        return fingerprint == self.fingerprint or fingerprint in self.other_fingerprints

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
    files = [BACKEND, CONFIG, ROLE_MAP]
    tokenizer.save(str(directory / BACKEND))
    role_map = {f"{role}_token": name for role, name in names.items()}
    write_json(directory / ROLE_MAP, role_map)
    write_json(directory / CONFIG, _config(tokenizer, names) | role_map)
    if _is_bert(tokenizer, names):
        files.append(_VOCABULARY)
        _write_vocabulary(directory / _VOCABULARY, tokenizer)
    about = {
        "kind": kind,
        "vocab_size": _vocab_size(tokenizer),
        "lowercase": _lowers(tokenizer),
        "fingerprint": pipeline_fingerprint(tokenizer, ids),
        "special_ids": ids,
    }
    write_manifest(directory, {**about, **(facts or {})}, files)


def load_tokenizer(path: Path) -> LoadedTokenizer:
    """Open a tokenizer folder after comparing every byte with its manifest.

    Raises:
        UserError: when the folder is not complete or has changed since it was made.
    """
    remedy = (
        "make it with launch/prepare_data.py, which takes over the folder of another tool as "
        "tokenizer.vocabulary, or correct tokenizer.path"
    )
    manifest = read_manifest(path, "tokenizer", remedy)
    if damage := find_damage(path, manifest, hashes=True):
        raise UserError(
            f"The tokenizer {path} does not match its manifest: {damage}; restore it, or remove "
            "the folder and make it again."
        )
    loaded = read_tokenizer(path)
    stated = str(manifest.get("fingerprint"))
    if not loaded.is_recorded_as(stated):
        raise UserError(
            f"The tokenizer {path} has the fingerprint {loaded.fingerprint}, its manifest has "
            f"{stated}: {remedy}."
        )
    # What is stated stays, because runs and corpora that were made with this folder have it.
    return replace(
        loaded,
        fingerprint=stated,
        other_fingerprints=loaded.other_fingerprints | {loaded.fingerprint},
    )


def read_tokenizer(path: Path) -> LoadedTokenizer:
    """Open any Hugging Face fast tokenizer folder, such as that of an exported model.

    Raises:
        UserError: when it is not one, or lacks a special token.
    """
    backend = read_backend(path / BACKEND)
    ids = special_ids(backend, role_names(path), path)
    return loaded_tokenizer(path, backend, ids, frozenset({file_fingerprint(path / BACKEND)}))


def loaded_tokenizer(
    path: Path,
    backend: Tokenizer,
    ids: Mapping[str, int],
    other_fingerprints: frozenset[str] = frozenset(),
) -> LoadedTokenizer:
    """Return a tokenizer of the library with its fingerprint.

    Args:
        path: of its folder.
        backend: without truncation and padding.
        ids: of each role.
        other_fingerprints: see `LoadedTokenizer`.
    """
    return LoadedTokenizer(
        path=path,
        backend=backend,
        fingerprint=pipeline_fingerprint(backend, ids),
        other_fingerprints=other_fingerprints,
        vocab_size=_vocab_size(backend),
        pad_id=ids["pad"],
        unk_id=ids["unk"],
        cls_id=ids["cls"],
        sep_id=ids["sep"],
        mask_id=ids["mask"],
    )


def read_backend(path: Path, *, shown: Path | None = None) -> Tokenizer:
    """Read a tokenizer.json, with truncation and padding off.

    Args:
        path: of the file.
        shown: the path for messages, where `path` is a copy.

    Raises:
        UserError: when the file is missing or is not a tokenizer.
    """
    if not path.is_file():
        raise UserError(f"There is no {path}: give the folder of a Hugging Face fast tokenizer.")
    read_json_object(path)
    try:
        tokenizer = Tokenizer.from_str(read_text(path))
    # The Rust library raises a bare Exception for whatever it cannot read.
    except Exception as error:
        raise UserError(
            f"{shown or path} is not a fast tokenizer that can be read ({error})."
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _config(tokenizer: Tokenizer, names: Mapping[str, str]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model_max_length": _MODEL_MAX_LENGTH,
        # Whatever the algorithm, the model is a BERT, which takes segment ids.
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    # BertTokenizer rebuilds its pipeline from these; any other is loaded from tokenizer.json.
    if not _is_bert(tokenizer, names):
        return {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    normalizer = _part(tokenizer, "normalizer")
    return {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": normalizer["lowercase"],
        "strip_accents": normalizer["strip_accents"],
        "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
        **config,
    }


def _is_bert(tokenizer: Tokenizer, names: Mapping[str, str]) -> bool:
    """Tell whether this is BERT's own pipeline, which vocab.txt and a few keys describe completely.

    BertTokenizer of transformers has no other settings than these, whatever tokenizer.json has.
    """
    model, normalizer = _part(tokenizer, "model"), _part(tokenizer, "normalizer")
    return (
        model.get("type") == "WordPiece"
        and model["continuing_subword_prefix"] == "##"
        and model["max_input_chars_per_word"] == MAX_WORD_CHARS
        and model["unk_token"] == names["unk"]
        and normalizer.get("type") == "BertNormalizer"
        and normalizer["clean_text"]
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
