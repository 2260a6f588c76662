"""Tokenizers of others: a folder or a tokenizer.json, with the ids that plain transformers gives.

`AutoTokenizer.from_pretrained(folder)` defines the ids of a folder, because users of the model call
it: tokenizer_config.json may override tokenizer.json, in a way that depends on the class.
transformers is imported in this file alone, and works without torch.
"""

import contextlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from data_prep.errors import UserError
from data_prep.manifest import write_json
from data_prep.progress import log
from data_prep.tokenizers.folder import BACKEND, read_backend
from data_prep.tokenizers.foreign.unknown_token import check_unknown_token
from data_prep.tokenizers.foreign.vocabulary_file import read_vocabulary_file
from data_prep.tokenizers.json_files import read_json_object, read_text
from data_prep.tokenizers.roles import (
    BERT_NAMES,
    CONFIG,
    ROBERTA_NAMES,
    ROLE_MAP,
    ROLES,
)

VOCABULARY = "vocab.txt"
_ADDED = "added_tokens.json"
_MODEL_CONFIG = "config.json"
_OBJECTS = (BACKEND, CONFIG, ROLE_MAP, _ADDED, _MODEL_CONFIG, "vocab.json")
_VOCABULARY_ENDS = (".txt", ".model", ".codes")
# Capitals, accents, ideographs, a long word, and what other settings of BERT's pipeline decide.
_PROBES = (
    "Stone",
    "STONE",
    "café",
    "Straße",
    "İstanbul",
    "漢字",
    "naïve",
    "e\u0301",
    "don't",
    "x" * 101,
)
_PROBED_TOKENS = 2_000
_SHOWN_CHARS, _SHOWN_TOKENS = 30, 8


@dataclass(frozen=True, kw_only=True)
class AdoptedTokenizer:
    """A tokenizer as transformers opens it.

    Attributes:
        backend: without truncation and padding.
        names: the special token of each role.
        origin: its folder or file.
    """

    backend: Tokenizer
    names: dict[str, str]
    origin: Path


def adopt_tokenizer(path: Path) -> AdoptedTokenizer:
    """Open a tokenizer folder, or a tokenizer.json, as transformers does.

    Raises:
        UserError: when a file cannot be read, when transformers does not open it as a fast
            tokenizer, when its model has no unknown token or no token for a role.
    """
    with tempfile.TemporaryDirectory() as name:
        staged = Path(name)
        _stage(path, staged)
        raw = None
        if (staged / BACKEND).is_file():
            raw = read_backend(staged / BACKEND, shown=_file_in(path, BACKEND))
            check_unknown_token(raw, _file_in(path, BACKEND))
        theirs = _open(staged, path)
        known = _known_tokens(staged, raw or Tokenizer.from_str(_backend_of(theirs).to_str()))
    backend = Tokenizer.from_str(_backend_of(theirs).to_str())
    backend.no_truncation()
    backend.no_padding()
    if raw is not None:
        _compare_with_file(raw, backend, path)
    check_unknown_token(backend, path)
    return AdoptedTokenizer(backend=backend, names=_names(theirs, known, path), origin=path)


def check_same_ids(adopted: AdoptedTokenizer, directory: Path) -> None:
    """Compare the ids of a written folder, as transformers opens it, with those it was made of.

    Raises:
        UserError: naming the first text of other ids.
    """
    written = _backend_of(_open(directory, directory))
    if text := first_difference(adopted.backend, written):
        raise UserError(
            f"The tokenizer {adopted.origin} cannot be taken over: a copy of it gives {text!r} the "
            f"tokens {_tokens(written, text)} instead of {_tokens(adopted.backend, text)}; save it "
            "with `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(NEW)` and give that."
        )


def first_difference(first: Tokenizer, second: Tokenizer) -> str | None:
    """Return the first of many short texts whose ids differ, or None."""
    # Special tokens are inserted by training, and never found in text.
    special = {token.content for token in second.get_added_tokens_decoder().values()}
    vocabulary = sorted(first.get_vocab(with_added_tokens=False).keys() - special)
    step = max(1, len(vocabulary) // _PROBED_TOKENS)
    words = [token.strip("#\u2581\u0120") for token in vocabulary[::step]]
    texts = [*_PROBES, *(f"{word} {word.capitalize()}" for word in words)]
    for text in texts:
        if _ids(first, text) != _ids(second, text):
            return text
    return None


def _stage(path: Path, staged: Path) -> None:
    """Copy the files of a tokenizer, the JSON ones without a byte order mark."""
    folder = path if path.is_dir() else path.parent
    if path.is_file() and path.name != BACKEND:
        _stage_object(path, staged / BACKEND)
        return
    for name in _OBJECTS:
        if (folder / name).is_file():
            _stage_object(folder / name, staged / name)
    for file in folder.iterdir():
        if file.is_file() and file.name.endswith(_VOCABULARY_ENDS):
            shutil.copyfile(file, staged / file.name)
    if not (staged / BACKEND).is_file() and (staged / VOCABULARY).is_file():
        _stage_vocabulary(folder, staged)
    # transformers makes a tokenizer of five tokens for a BERT without any file of one.
    if not any(file.name == BACKEND or _is_vocabulary(file) for file in staged.iterdir()):
        raise UserError(
            f"{path} has no {BACKEND} and no vocabulary: give the folder of a Hugging Face "
            "tokenizer."
        )


def _is_vocabulary(file: Path) -> bool:
    return file.name.endswith(_VOCABULARY_ENDS) or file.name == "vocab.json"


def _stage_object(file: Path, copy: Path) -> None:
    read_json_object(file)
    copy.write_text(read_text(file), encoding="utf-8", newline="")


def _stage_vocabulary(folder: Path, staged: Path) -> None:
    """Write a vocab.txt whose lines differ, and BERT's class where none is named."""
    vocabulary = read_vocabulary_file(folder / VOCABULARY)
    text = "".join(f"{token}\n" for token in vocabulary)
    (staged / VOCABULARY).write_text(text, encoding="utf-8", newline="\n")
    config = read_json_object(staged / CONFIG) if (staged / CONFIG).is_file() else {}
    model_config = staged / _MODEL_CONFIG
    model = read_json_object(model_config) if model_config.is_file() else {}
    if not config.get("tokenizer_class") and not model.get("model_type"):
        write_json(staged / CONFIG, {**config, "tokenizer_class": "BertTokenizer"})


def _open(folder: Path, shown: Path) -> Any:
    """Return `AutoTokenizer.from_pretrained(folder)`, of local files and without their code."""
    with _quiet_transformers() as auto_tokenizer:
        try:
            opened = auto_tokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
        # Each class, and the Rust library, raises errors of its own.
        except Exception as error:
            raise UserError(_refusal(folder, shown, error)) from error
    if not getattr(opened, "is_fast", False):
        raise UserError(
            f"{shown} is a {type(opened).__name__}, which has no fast tokenizer: give a folder "
            f"with a {BACKEND}."
        )
    return opened


def _refusal(folder: Path, shown: Path, error: Exception) -> str:
    text = str(error).replace(str(folder), str(shown)).strip()
    reason = " ".join(text.split("\n")[0].split())[:200]
    names = sorted(file.name for file in folder.iterdir())
    if BACKEND in names:
        return f"transformers cannot open the tokenizer {shown} ({type(error).__name__}: {reason})."
    found = [name for name in names if _is_vocabulary(Path(name))]
    return (
        f"{shown} has no {BACKEND}, and transformers makes none of its {', '.join(found)} "
        f"({reason.rstrip(':')}): name the class in its {CONFIG}, such as "
        '{"tokenizer_class": "RobertaTokenizer"}, or convert it with '
        "`AutoTokenizer.from_pretrained(FOLDER).save_pretrained(NEW)`."
    )


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[Any]:
    """Import transformers' AutoTokenizer, without its advice about torch and class names."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield AutoTokenizer
    finally:
        logger.setLevel(level)


def _backend_of(opened: Any) -> Tokenizer:
    backend: Tokenizer = opened.backend_tokenizer
    return backend


def _known_tokens(staged: Path, backend: Tokenizer) -> set[str]:
    """Return the tokens that the files have, without those that transformers adds on opening."""
    given = (staged / BACKEND).is_file()
    known = set(backend.get_vocab(with_added_tokens=given))
    if (staged / _ADDED).is_file():
        known |= set(read_json_object(staged / _ADDED))
    if (staged / CONFIG).is_file():
        decoder = read_json_object(staged / CONFIG).get("added_tokens_decoder") or {}
        known |= {token["content"] for token in decoder.values()}
    return known


def _names(opened: Any, known: set[str], path: Path) -> dict[str, str]:
    """Return the special token of each role; roles that are not named have BERT's or RoBERTa's."""
    usual: Mapping[str, str] = BERT_NAMES
    if not set(BERT_NAMES.values()) & known and set(ROBERTA_NAMES.values()) <= known:
        usual = ROBERTA_NAMES
    names = {role: getattr(opened, f"{role}_token", None) or usual[role] for role in ROLES}
    if missing := [name for name in names.values() if name not in known]:
        raise UserError(
            f"The vocabulary of {path} has no {', '.join(missing)}: BERT needs a token for each of "
            f"{', '.join(ROLES)}; name them in its {CONFIG}, or add them with `add_special_tokens` "
            "and `save_pretrained` of transformers."
        )
    return names


def _compare_with_file(raw: Tokenizer, backend: Tokenizer, path: Path) -> None:
    """Report where tokenizer_config.json overrides tokenizer.json; refuse what breaks words."""
    text = first_difference(raw, backend)
    if text is None:
        return
    file, config = _file_in(path, BACKEND), _file_in(path, CONFIG)
    if not config.is_file():
        config = config.with_name(_MODEL_CONFIG)
    alone, together = _tokens(raw, text), _tokens(backend, text)
    text = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
    prefix = _prefix(raw)
    if prefix != _prefix(backend):
        raise UserError(
            f"{config} names a class that ignores the prefix {prefix!r} of {file}, so that "
            f"transformers gives {text!r} the tokens {together} instead of {alone}: set "
            f'"tokenizer_class": "PreTrainedTokenizerFast" in {_file_in(path, CONFIG)}.'
        )
    log(
        f"{config} overrides {file}, as in transformers: {text!r} becomes {together}, and "
        f"{alone} by {file.name} alone"
    )


def _prefix(tokenizer: Tokenizer) -> str | None:
    """Return what marks a token inside a word."""
    prefix: str | None = json.loads(tokenizer.to_str())["model"].get("continuing_subword_prefix")
    return prefix or None


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    tokens: list[str] = tokenizer.encode(text, add_special_tokens=False).tokens
    return [*tokens[:_SHOWN_TOKENS], "..."] if len(tokens) > _SHOWN_TOKENS else tokens


def _file_in(path: Path, name: str) -> Path:
    return path / name if path.is_dir() else path.with_name(name)
