"""The tokenizer of a model beside that of a corpus: whether they are the same, and what differs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from data_prep.errors import UserError
from data_prep.tokenizers.fingerprints import file_fingerprint, pipeline_fingerprint
from data_prep.tokenizers.folder import BACKEND, LoadedTokenizer, loaded_tokenizer, read_backend
from data_prep.tokenizers.foreign.adoption import adopt_tokenizer, first_difference
from data_prep.tokenizers.roles import ROLES, special_ids


def open_model_tokenizer(path: Path) -> LoadedTokenizer:
    """Open the tokenizer of a run, an export or a foreign model, as transformers does.

    Raises:
        UserError: as `adopt_tokenizer`.
    """
    folder = path / "tokenizer" if (path / "tokenizer").is_dir() else path
    adopted = adopt_tokenizer(folder)
    ids = special_ids(adopted.backend, adopted.names, folder)
    return loaded_tokenizer(folder, adopted.backend, ids, _earlier(folder, adopted.backend, ids))


def _earlier(folder: Path, backend: Tokenizer, ids: Mapping[str, int]) -> frozenset[str]:
    """Return the fingerprint that earlier versions gave, of tokenizer.json alone.

    Where tokenizer_config.json overrides that file, it is the fingerprint of another tokenizer.
    """
    file = folder / BACKEND
    if not file.is_file():
        return frozenset()
    alone = pipeline_fingerprint(read_backend(file), ids)
    same = alone == pipeline_fingerprint(backend, ids)
    return frozenset({file_fingerprint(file)} if same else ())


def check_model_tokenizer(path: Path, stated: str, tokenizer: LoadedTokenizer) -> None:
    """Refuse a model of another tokenizer than that of a corpus.

    Args:
        path: folder of the model.
        stated: the fingerprint that its run recorded, "" for a model from elsewhere.
        tokenizer: of the corpus.

    Raises:
        UserError: naming what differs, or when the model has no tokenizer that can be opened.
    """
    if stated and tokenizer.is_recorded_as(stated):
        return
    own = open_model_tokenizer(path)
    # The same tokenizer has other fingerprints in runs and corpora of other versions.
    recorded = {own.fingerprint, *own.other_fingerprints}
    same = any(tokenizer.is_recorded_as(fingerprint) for fingerprint in recorded)
    if same and (not stated or own.is_recorded_as(stated)):
        return
    raise UserError(
        f"The model {path} has the tokenizer {stated or own.fingerprint}, but the corpus was made "
        f"with {tokenizer.fingerprint}: {_difference(own, tokenizer)}; prepare the corpus with "
        f"tokenizer.kind=existing tokenizer.vocabulary={own.path}, or name a model of the corpus's "
        "tokenizer."
    )


def _difference(own: LoadedTokenizer, corpus: LoadedTokenizer) -> str:
    """Return what differs first, with both values, from the coarse to the fine."""
    for name, read in (
        ("its algorithm", _algorithm),
        ("tokenizer.lowercase", lambda each: _keeps(each, "A") is False),
        ("tokenizer.strip_accents", lambda each: _keeps(each, "é") is False),
        ("its vocabulary size", lambda each: each.vocab_size),
    ):
        here, there = read(corpus), read(own)
        if here != there:
            return f"{name} is {_shown(there)} there and {_shown(here)} here"
    ours, theirs = (each.backend.get_vocab(with_added_tokens=True) for each in (corpus, own))
    if ours != theirs:
        index, token = min(
            (theirs[token], token) for token in theirs if ours.get(token) != theirs[token]
        )
        return f"its id {index} is {token!r} there and {corpus.backend.id_to_token(index)!r} here"
    for role in ROLES:
        here, there = getattr(corpus, f"{role}_id"), getattr(own, f"{role}_id")
        if here != there:
            return f"its {role} token is {there} there and {here} here"
    text = first_difference(own.backend, corpus.backend)
    if text is None:
        return "its files have changed since"
    there, here = (
        each.backend.encode(text, add_special_tokens=False).tokens for each in (own, corpus)
    )
    return f"{text!r} becomes {there} there and {here} here"


def _algorithm(tokenizer: LoadedTokenizer) -> str:
    return str(json.loads(tokenizer.backend.to_str())["model"]["type"])


def _keeps(tokenizer: LoadedTokenizer, character: str) -> bool:
    normalizer: Any = tokenizer.backend.normalizer
    return normalizer is None or character in normalizer.normalize_str(character)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
