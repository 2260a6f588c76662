"""What text a token stands for, and whether it begins a word: the same for all tokenizers.

WordPiece marks tokens inside a word (`##ing`), SentencePiece those that begin one (`▁the`), and
byte-level BPE writes a space as `Ġ` and other bytes as letters. Between two vocabularies of one
notation, tokens are compared as they are written; between two notations, by their forms.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from tokenizers import Tokenizer, decoders, pre_tokenizers

from data_prep.tokenizers.folder import LoadedTokenizer

_SPACE = "\u2581"  # SentencePiece's
_INVALID = "\ufffd"


class Form(NamedTuple):
    """A token, whatever its notation."""

    text: str
    begins_word: bool


class Notation(NamedTuple):
    """How a tokenizer marks where words begin."""

    kind: Literal["prefix", "space", "bytes", "plain"]
    prefix: str = ""  # of tokens inside a word


@dataclass(frozen=True)
class TokenForms:
    """The tokens of a vocabulary, and the pieces of any text."""

    tokenizer: LoadedTokenizer

    @cached_property
    def notation(self) -> Notation:
        """Its notation; `plain` where nothing is marked."""
        content = json.loads(self._backend.to_str())
        if prefix := content["model"].get("continuing_subword_prefix"):
            return Notation("prefix", prefix)
        parts = {
            part["type"]
            for name in ("normalizer", "pre_tokenizer", "decoder")
            for part in _parts(content[name])
        }
        if "ByteLevel" in parts:
            return Notation("bytes")
        marked = any(token.startswith(_SPACE) for token in self.vocabulary)
        return Notation("space" if marked else "plain")

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """All tokens, special ones included, by their ids."""
        return dict(self._backend.get_vocab(with_added_tokens=True))

    @cached_property
    def ordinary(self) -> dict[str, int]:
        """The tokens that text can produce."""
        ids = set(self.tokenizer.ordinary_ids.tolist())
        return {token: index for token, index in self.vocabulary.items() if index in ids}

    def form(self, token: str) -> Form | None:
        """Return the form of a token, None for a part of a character."""
        if token in self._added:
            return Form(token, begins_word=True)
        kind, prefix = self.notation
        if kind == "prefix" and token.startswith(prefix) and token != prefix:
            return Form(token.removeprefix(prefix), begins_word=False)
        if kind == "space":
            text = token.replace(_SPACE, " ")
            return Form(text.lstrip(" "), begins_word=text.startswith(" "))
        if kind == "bytes":
            text = str(decoders.ByteLevel().decode([token]))
            if _INVALID in text:
                return None
            return Form(text.lstrip(" "), begins_word=text.startswith(" "))
        return Form(token, begins_word=True)

    def pieces(self, form: Form) -> list[int]:
        """Return the ordinary ids into which this tokenizer splits a text; none if it cannot."""
        ids = [] if form.begins_word else self._inside_word(form.text)
        return self._known(ids) or self._known(self._as_word(form.text))

    @property
    def _backend(self) -> Tokenizer:
        return self.tokenizer.backend

    @cached_property
    def _added(self) -> frozenset[str]:
        """The tokens that were added to a vocabulary afterwards: written without any mark."""
        return frozenset(
            self._backend.get_vocab(with_added_tokens=True).keys()
            - self._backend.get_vocab(with_added_tokens=False).keys()
        )

    @cached_property
    def _with_text(self) -> frozenset[int]:
        """The ordinary ids, without the mark of a space alone."""
        forms = {index: self.form(token) for token, index in self.ordinary.items()}
        return frozenset(index for index, form in forms.items() if form is None or form.text)

    def _known(self, ids: list[int]) -> list[int]:
        return [index for index in ids if index in self._with_text]

    def _as_word(self, text: str) -> list[int]:
        # Byte-level BPE writes words in running text with their space.
        spaced = f" {text}" if self.notation.kind == "bytes" else text
        ids: list[int] = self._backend.encode(spaced, add_special_tokens=False).ids
        return ids

    def _inside_word(self, text: str) -> list[int]:
        """Return the ids of a text that follows a letter without a space."""
        kind, prefix = self.notation
        if kind == "bytes":
            split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            text = "".join(part for part, _ in split.pre_tokenize_str(text))
        elif self._backend.normalizer is not None:
            text = self._backend.normalizer.normalize_str(text).lstrip(f"{_SPACE} ")
        if kind == "prefix":
            return [] if self._is_divided(text) else self._longest_match(text, prefix)
        return [token.id for token in self._backend.model.tokenize(text)] if text else []

    def _is_divided(self, text: str) -> bool:
        """Tell whether a word ends before this text, as before punctuation or an ideograph."""
        splitter = self._backend.pre_tokenizer
        return splitter is not None and len(splitter.pre_tokenize_str(f"a{text}")) > 1

    def _longest_match(self, text: str, prefix: str) -> list[int]:
        """Split what is left of a word as WordPiece does: the longest token first."""
        ids: list[int] = []
        start = 0
        while start < len(text):
            for end in range(len(text), start, -1):
                if (index := self.vocabulary.get(prefix + text[start:end])) is not None:
                    ids.append(index)
                    start = end
                    break
            else:
                return []
        return ids


def _parts(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return a part of a pipeline, or the parts of its sequence."""
    if part is None:
        return []
    for key in ("pretokenizers", "normalizers", "decoders"):
        if key in part:
            return [each for inner in part[key] for each in _parts(inner)]
    return [part]
