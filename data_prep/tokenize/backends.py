"""Token ids of many sentences at once, by the fastest library that gives exactly the right ones.

The reference is `tokenizers`, behind the fast tokenizers of transformers. nanotoken computes
WordPiece, kitoken SentencePiece's unigram and BPE, both several times faster. Neither is trusted:
`cross_check.py` compares a sample of every task with the reference.
"""

import importlib.util
import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from data_prep.corpus.shards import Int64Array

IdArray = npt.NDArray[Any]
# From sentences to the ids of all of them [T], and where each begins and ends in these [S + 1].
Encode = Callable[[Sequence[str]], tuple[IdArray, Int64Array]]


# Marks of blocks that grow with new versions of Unicode, which libraries order by tables of their
# own; what is not assigned is added to them.
_ACCENTED = "[^\x00-\u036f][\u0300-\u036f]"
_NEW_MARKS = "\u0870-\u089f\u1ab0-\u1aff\u1dc0-\u1dff\U00010d00-\U0001efff"


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A library that computes ids.

    Attributes:
        name: of the library.
        encode: sentences to ids; text that spells a special token gets the ids of its characters.
        reason: why it is not a faster one; empty for those that are.
    """

    name: str
    encode: Encode
    reason: str = ""


def choose_backend(tokenizer: Tokenizer) -> Backend:
    """Return the fastest backend for a tokenizer."""
    content = json.loads(tokenizer.to_str())
    model = (content.get("model") or {}).get("type")
    wanted = {"WordPiece": _nanotoken, "Unigram": _kitoken, "BPE": _kitoken}.get(str(model))
    if wanted is None:
        return reference_backend(tokenizer, f"no faster library computes {model} models")
    return wanted(tokenizer, content)


def reference_backend(tokenizer: Tokenizer, reason: str = "") -> Backend:
    """Return the backend that defines which ids are right."""

    def encode(sentences: Sequence[str]) -> tuple[IdArray, Int64Array]:
        encodings = tokenizer.encode_batch_fast(sentences, add_special_tokens=False)
        return _flat([encoding.ids for encoding in encodings])

    return Backend(name="tokenizers", encode=encode, reason=reason)


def _nanotoken(tokenizer: Tokenizer, content: dict[str, Any]) -> Backend:
    if importlib.util.find_spec("nanotoken") is None:
        return reference_backend(tokenizer, "nanotoken is not installed")
    from nanotoken import Tokenizer as NanoTokenizer
    from nanotoken import UnsupportedTokenizerError

    try:
        fast = NanoTokenizer.from_json(json.dumps(_without_special(content)))
    except UnsupportedTokenizerError as error:
        return reference_backend(tokenizer, f"nanotoken does not support it: {error}")

    def encode(sentences: Sequence[str]) -> tuple[IdArray, Int64Array]:
        # Processes work in parallel, each on one core.
        found = fast.encode_batch(sentences, add_special_tokens=False, parallel=False)
        return found.ids, found.offsets

    return Backend(name="nanotoken", encode=encode)


def _kitoken(tokenizer: Tokenizer, content: dict[str, Any]) -> Backend:
    if (content.get("pre_tokenizer") or {}).get("type") != "Metaspace":
        return reference_backend(tokenizer, "kitoken is used for SentencePiece's models alone")
    if not _has_scores_in_32_bits(content):
        return reference_backend(tokenizer, "kitoken holds scores in 32 bits, and its have 64")
    if importlib.util.find_spec("kitoken") is None:
        return reference_backend(tokenizer, "kitoken is not installed")
    from kitoken import Kitoken

    try:
        fast = Kitoken.from_tokenizers(json.dumps(content).encode())
    except Exception as error:  # it documents no type
        return reference_backend(tokenizer, f"kitoken cannot read it: {error}")

    space = tokenizer.token_to_id(content["pre_tokenizer"]["replacement"])
    special, uncertain = re.compile(_special(content)), re.compile(_uncertain(content))

    def encode(sentences: Sequence[str]) -> tuple[IdArray, Int64Array]:
        ids = fast.encode_all(list(sentences), False)
        for index, sentence in enumerate(sentences):
            pattern = special if sentence.isascii() else uncertain
            # It gives a space for a sentence of which the normalizer leaves nothing.
            if ids[index] == [space] or pattern.search(sentence):
                ids[index] = tokenizer.encode(sentence, add_special_tokens=False).ids
        return _flat(ids)

    return Backend(name="kitoken", encode=encode)


def _special(content: dict[str, Any]) -> str:
    """Return what matches special tokens, in any case, which a normalizer may change."""
    special = [re.escape(token["content"]) for token in content["added_tokens"]]
    return f"(?i:{'|'.join(special) or '(?!)'})"


def _uncertain(content: dict[str, Any]) -> str:
    """Return what matches all that kitoken may treat otherwise, measured over all characters.

    Special tokens divide a text for it also where they are not looked for, and accents that follow
    anything but Latin letters, or characters that are not assigned, may compose otherwise. It
    lower-cases a sigma that ends a word to the final one.
    """
    first = {token["content"][0] for token in content["added_tokens"]}
    characters = "".join(
        re.escape(character)
        for character in map(chr, range(0x80, 0x10000))
        if unicodedata.category(character) == "Cn"
        or not first.isdisjoint(unicodedata.normalize("NFKC", character))
    )
    return "|".join([f"[\u03a3{_NEW_MARKS}{characters}]", _ACCENTED, _special(content)])


def _has_scores_in_32_bits(content: dict[str, Any]) -> bool:
    """Tell whether the scores of a Unigram model are those of SentencePiece, in 32 bits.

    Others are rounded, and of two paths of nearly equal scores another may be taken. A score read
    from JSON may be off by the last of its 64 bits. Special tokens are in no path: kitoken leaves
    them out of its model, and a text that spells one is encoded by the reference. That adds their
    least score for each unknown character, which is the same for all paths.
    """
    model = content["model"]
    if model["type"] != "Unigram":
        return True
    special = {token["content"] for token in content["added_tokens"]}
    scores = np.array([score for piece, score in model["vocab"] if piece not in special])
    return bool(np.allclose(scores, scores.astype(np.float32), rtol=1e-12, atol=0.0))


def _without_special(content: dict[str, Any]) -> dict[str, Any]:
    """Leave out special tokens, which would be found in text, where no text is to give them."""
    kept = [token for token in content.get("added_tokens", []) if not token["special"]]
    return {**content, "added_tokens": kept, "truncation": None, "padding": None}


def _flat(ids: list[list[int]]) -> tuple[IdArray, Int64Array]:
    offsets = np.zeros(len(ids) + 1, np.int64)
    np.cumsum([len(sentence) for sentence in ids], out=offsets[1:])
    flat = np.fromiter(itertools.chain.from_iterable(ids), np.uint32, int(offsets[-1]))
    return flat, offsets
