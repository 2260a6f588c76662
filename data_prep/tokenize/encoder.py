"""Documents to token ids and sentence offsets: the one way from text to ids.

A batch of cleaned documents is one text, in which a newline ends a paragraph. Sentence starts are
found in all of it at once, its sentences go to the tokenizer in one call, and the ids come back as
one flat array.

Sentences are encoded alone where that gives the ids of running text: where the tokenizer splits at
the spaces, or around the punctuation, between them. Otherwise whole paragraphs are encoded, and the
sentence boundaries found in the offsets of their tokens.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from data_prep.corpus.shards import Documents, Int64Array
from data_prep.errors import UserError
from data_prep.languages import LANGUAGES
from data_prep.tokenize.backends import Backend, IdArray, choose_backend, reference_backend
from data_prep.tokenize.cross_check import CrossCheck
from data_prep.tokenize.sentence_rules import starts_finder

# What shows whether a tokenizer treats the beginning of a text otherwise than that of a sentence.
_EXAMPLE = ("One two.", "“Three” four!", "5 six?", "Seven")
_UNSPACED_EXAMPLE = ("一二。", "「三」四！", "5？", "六")
# A function of the user: the sentences of a paragraph.
Splitter = Callable[[str], Iterable[str]]


@dataclass(frozen=True, kw_only=True)
class EncodedTexts(Documents):
    """Texts as flat arrays: paragraph j is the sentences `paragraphs[j]` to `paragraphs[j + 1]`.

    No sentence is empty; paragraphs and documents may be. Document j has `sizes[j]` paragraphs.
    `altered` is a mask of the documents of which the user's splitter returned another text than it
    was given.
    """

    paragraphs: Int64Array
    sizes: Int64Array
    altered: npt.NDArray[np.bool_]


class TextEncoder:
    """Encodes cleaned texts; text never yields a special token.

    A text that spells "[SEP]" gets the ids of its characters: only the pretraining code inserts
    special tokens.

    Args:
        tokenizer: any fast tokenizer.
        token_type: of an id on disk.
        language: the rules that end a sentence, by ISO code.
        splitter: replaces these rules; returns the sentences of a paragraph.
        backend: `auto` is the fastest library; `tokenizers` the reference.

    Attributes:
        backend: the library that computes the ids.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        token_type: np.dtype[Any],
        language: str,
        splitter: Splitter | None = None,
        backend: str = "auto",
    ) -> None:
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._token_type = token_type
        self._splitter = splitter
        self._find_starts = starts_finder(language)
        self._spaced = LANGUAGES[language].kind != "unspaced"
        self._alone = _splits_between_sentences(tokenizer, self._spaced)
        self.backend = self._choose_backend(backend)
        fast = self.backend.name != "tokenizers"
        self._check = CrossCheck(tokenizer, self.backend.name) if fast else None

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """Return the tokens of some texts, in which a newline ends a paragraph.

        Raises:
            UserError: when a fast library gives other ids than the reference, or the splitter does
                not return sentences.
        """
        if not texts:
            nothing = np.zeros(1, np.int64)
            tokens = np.zeros(0, self._token_type)
            return EncodedTexts(
                tokens=tokens,
                sentences=nothing,
                paragraphs=nothing,
                documents=nothing,
                sizes=np.zeros(0, np.int64),
                altered=np.zeros(0, np.bool_),
            )
        text = "\n".join(texts)
        begins = _paragraph_bounds(text)
        altered = np.zeros(len(begins) - 1, np.bool_)
        if self._splitter is not None:
            sentences, counts, altered = self._split_by_user(text.split("\n"))
        else:
            sentences, counts = self._split(text, begins)
        if self._alone or self._splitter is not None:
            tokens, offsets = self.backend.encode(sentences)
        else:
            tokens, offsets = self._encode_paragraphs(text.split("\n"), sentences, counts)
        paragraph_ends = offsets[np.cumsum(counts)]
        if self._check is not None and self._splitter is not None:
            self._check.compare(sentences.__getitem__, tokens, offsets[1:])
        elif self._check is not None:
            self._check.compare(
                lambda index: text[begins[index] : begins[index + 1] - 1], tokens, paragraph_ends
            )
        document_ends = np.cumsum([len(each) + 1 for each in texts])
        last = np.searchsorted(begins, document_ends)  # the paragraphs up to and with each's last
        bounds = _without_empty(offsets[1:])
        return EncodedTexts(
            tokens=tokens.astype(self._token_type),
            sentences=bounds,
            paragraphs=_bounds(np.searchsorted(bounds, paragraph_ends)),
            documents=_bounds(np.searchsorted(bounds, paragraph_ends[last - 1])),
            sizes=np.diff(last, prepend=0),
            altered=np.logical_or.reduceat(altered, _bounds(last)[:-1]),
        )

    def _choose_backend(self, wanted: str) -> Backend:
        if wanted == "tokenizers":
            return reference_backend(self._tokenizer, "tokenizer.backend=tokenizers")
        if not self._alone:
            reason = "its tokens depend on the text across a sentence boundary"
            return reference_backend(self._tokenizer, reason)
        return choose_backend(self._tokenizer)

    def _split(self, text: str, bounds: Int64Array) -> tuple[list[str], Int64Array]:
        """Return the sentences of a text, and how many each paragraph has."""
        starts = np.sort(np.concatenate([bounds, self._find_starts(text)]))
        counts = np.diff(np.searchsorted(starts, bounds))
        pairs = pairwise(starts.tolist())
        # Behind each sentence lies a space or a newline; in unspaced scripts perhaps neither.
        if self._spaced:
            return [text[start : stop - 1] for start, stop in pairs], counts
        return [text[start:stop].rstrip("\n ") for start, stop in pairs], counts

    def _split_by_user(
        self, paragraphs: Sequence[str]
    ) -> tuple[list[str], Int64Array, npt.NDArray[np.bool_]]:
        """Return what `_split` does, and a mask of the paragraphs whose text is another now."""
        assert self._splitter is not None
        split = [sentences_by(self._splitter, paragraph) for paragraph in paragraphs]
        counts = np.array([len(sentences) for sentences in split], np.int64)
        altered = [
            _without_spaces(paragraph) != _without_spaces("".join(sentences))
            for paragraph, sentences in zip(paragraphs, split, strict=True)
        ]
        return (
            [sentence for sentences in split for sentence in sentences],
            counts,
            np.array(altered),
        )

    def _encode_paragraphs(
        self, paragraphs: Sequence[str], sentences: Sequence[str], counts: Int64Array
    ) -> tuple[IdArray, Int64Array]:
        """Encode whole paragraphs; a token is of the sentence in which it ends."""
        encodings = self._tokenizer.encode_batch(list(paragraphs), add_special_tokens=False)
        ids: list[IdArray] = [np.zeros(0, np.uint32)]
        offsets = np.zeros(len(sentences) + 1, np.int64)
        first = 0
        for paragraph, encoding, count in zip(paragraphs, encodings, counts.tolist(), strict=True):
            ends = _sentence_ends(paragraph, sentences[first : first + count])
            token_ends = np.array([end for _, end in encoding.offsets], np.int64)
            sizes = np.searchsorted(token_ends, ends, side="right") if count else ends
            if count:
                sizes[-1] = len(token_ends)
            offsets[first + 1 : first + count + 1] = offsets[first] + sizes
            ids.append(np.array(encoding.ids, np.uint32))
            first += count
        return np.concatenate(ids), offsets


def sentences_by(splitter: Splitter, paragraph: str) -> list[str]:
    """Return the sentences that a user's function makes of a paragraph.

    Raises:
        UserError: when it fails, or returns anything but sentences.
    """
    where = f"input.sentences, for the paragraph that begins {paragraph[:60]!r},"
    try:
        found = splitter(paragraph)
        sentences = found if isinstance(found, str) else list(found)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"The function {where} raised {type(error).__name__}: {error}; correct it."
        ) from error
    if isinstance(sentences, str) or not all(isinstance(each, str) for each in sentences):
        raise UserError(
            f"The function {where} returned a {type(found).__name__}: it must return a list of "
            "strings, one a sentence."
        )
    return sentences


def _without_spaces(text: str) -> str:
    return "".join(text.split())


def _sentence_ends(paragraph: str, sentences: Sequence[str]) -> Int64Array:
    ends, at = [], 0
    for sentence in sentences:
        at = paragraph.index(sentence, at) + len(sentence)
        ends.append(at)
    return np.array(ends, np.int64)


def _splits_between_sentences(tokenizer: Tokenizer, spaced: bool) -> bool:
    """Tell whether the ids of a text are those of its sentences, concatenated.

    Args:
        tokenizer: whose pre-tokenizer is looked at.
        spaced: whether a space stands between sentences; else they end with punctuation.
    """
    content = json.loads(tokenizer.to_str())
    if any(not token["special"] for token in content["added_tokens"]):
        return False
    # A normalizer, or a later part of the pre-tokenizer, may add a prefix to every text.
    example, between = (_EXAMPLE, " ") if spaced else (_UNSPACED_EXAMPLE, "")
    alone = [piece for each in example for piece in _pieces(tokenizer, each)]
    if alone != _pieces(tokenizer, between.join(example)):
        return False
    first = content.get("pre_tokenizer") or {}
    while first.get("type") == "Sequence":
        first = first["pretokenizers"][0]
    if first.get("type") == "Metaspace":
        return spaced and first["prepend_scheme"] == "always" and bool(first.get("split", True))
    return first.get("type") == "BertPreTokenizer" or (
        spaced and first.get("type") in ("Whitespace", "WhitespaceSplit")
    )


def _pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    """Return what the model of a tokenizer gets of a text."""
    if tokenizer.normalizer is not None:
        text = tokenizer.normalizer.normalize_str(text)
    if tokenizer.pre_tokenizer is None:
        return [text]
    return [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def _paragraph_bounds(text: str) -> Int64Array:
    """Return where the paragraphs of a text begin, and where one after it would."""
    # A byte a character, which is a question mark for those outside Latin-1.
    codes = np.frombuffer(text.encode("latin-1", "replace") + b"\n", np.uint8)
    return _bounds(np.flatnonzero(codes == ord("\n")) + 1)


def _bounds(ends: Int64Array) -> Int64Array:
    return np.concatenate([np.zeros(1, np.int64), ends])


def _without_empty(ends: Int64Array) -> Int64Array:
    """Return the bounds of the non-empty ranges that end at `ends`."""
    bounds = _bounds(ends)
    chosen: Int64Array = bounds[np.concatenate([[True], np.diff(bounds) > 0])]
    return chosen
