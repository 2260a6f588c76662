"""BERT's vocab.txt: one token a line, its line number is its id."""

import unicodedata
from collections.abc import Mapping
from pathlib import Path

from data_prep.errors import UserError
from data_prep.progress import log
from data_prep.tokenizers.casing import Lowercase, bert_normalizer
from data_prep.tokenizers.json_files import read_json_object, read_text
from data_prep.tokenizers.roles import CONFIG, SPECIAL_TOKENS

# A vocabulary of lower-case words has a few tokens with capitals or accents, such as [unused1].
_REPORTED_SHARE = 0.02


def read_vocabulary_file(path: Path) -> dict[str, int]:
    """Return the ids of the tokens of a vocab.txt, as transformers reads it.

    Of a repeated token the last line counts. Every line keeps its number: one that no text can
    reach (an earlier repetition, an empty line) holds an `[unusedN]` that the file lacks.

    Raises:
        UserError: when the file is missing or is not UTF-8.
    """
    if not path.is_file():
        raise UserError(f"There is no vocabulary {path}: correct tokenizer.vocabulary.")
    # As the library reads it: only "\n" ends a line, and white space at its end is none of it.
    lines = [line.rstrip() for line in read_text(path).rstrip("\r\n").split("\n")]
    last = {token: index for index, token in enumerate(lines)}
    unreached = [index for index, token in enumerate(lines) if not token or last[token] != index]
    placeholders = _placeholders(last, len(unreached))
    for index, placeholder in zip(unreached, placeholders, strict=True):
        token = lines[index]
        what = f"the token {token!r} again, on line {last[token] + 1}" if token else "no token"
        log(f"{path}, line {index + 1}: {what}; the id {index} holds {placeholder}")
        lines[index] = placeholder
    return {token: index for index, token in enumerate(lines)}


def check_bert_vocabulary(path: Path, vocabulary: Mapping[str, int]) -> None:
    """Refuse a vocabulary without BERT's special tokens, or with nothing beside them.

    Raises:
        UserError: naming what is missing.
    """
    if len(vocabulary) <= len(SPECIAL_TOKENS):
        raise UserError(
            f"The vocabulary {path} has {len(vocabulary)} tokens, which leaves none for text "
            f"beside {', '.join(SPECIAL_TOKENS)}: give a whole vocabulary."
        )
    if missing := [token for token in SPECIAL_TOKENS if token not in vocabulary]:
        raise UserError(
            f"The vocabulary {path} has no {', '.join(missing)}: write each over an [unusedN] "
            "line, or at the end, so that the other ids stay."
        )


def warn_of_casing(
    path: Path, vocabulary: Mapping[str, int], lowercase: Lowercase, strip_accents: bool | None
) -> None:
    """Log which share of a vocabulary the recipe's casing makes unreachable.

    Args:
        path: of the vocab.txt.
        vocabulary: tokens and ids.
        lowercase: the option of this name.
        strip_accents: the option of this name.
    """
    normalizer = bert_normalizer(lowercase, strip_accents)
    lost = [token for token in vocabulary if _is_changed(token, normalizer)]
    share = len(lost) / len(vocabulary)
    stated = _stated_casing(path.with_name(CONFIG))
    disagrees = stated is not None and stated != bool(lowercase)
    if share > _REPORTED_SHARE or disagrees:
        beside = "" if stated is None else (
            f"; {path.with_name(CONFIG)} has do_lower_case {str(stated).lower()}"
        )  # fmt: skip
        examples = f", such as {', '.join(lost[:3])}" if lost else ""
        log(
            f"warning: {len(lost):,} of the {len(vocabulary):,} tokens of {path} ({share:.0%}"
            f"{examples}) have capitals or accents and can never occur with tokenizer.lowercase="
            f"{str(lowercase).lower()}{beside}"
        )


def _placeholders(taken: Mapping[str, int], count: int) -> list[str]:
    found: list[str] = []
    number = 0
    while len(found) < count:
        if (token := f"[unused{number}]") not in taken:
            found.append(token)
        number += 1
    return found


def _is_changed(token: str, normalizer: object) -> bool:
    if token.startswith("[") and token.endswith("]"):
        return False
    text = token.removeprefix("##")
    # Ideographs get spaces around them.
    normalized = str(normalizer.normalize_str(text)).strip()  # type: ignore[attr-defined]
    return normalized != text and normalized != unicodedata.normalize("NFD", text)


def _stated_casing(path: Path) -> bool | None:
    if not path.is_file():
        return None
    stated = read_json_object(path).get("do_lower_case")
    return stated if isinstance(stated, bool) else None
