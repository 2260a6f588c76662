"""Letter case and accents: what a tokenizer drops, and what a language would lose by it."""

import unicodedata
from collections.abc import Mapping
from typing import Literal

from tokenizers import normalizers

from data_prep.errors import UserError
from data_prep.progress import log

# `turkish` is Turkish and Azeri, where I is the capital of dotless ı, and İ of i.
Lowercase = bool | Literal["turkish"]

# Blocks of marks that are accents or points, in Latin, Greek, Cyrillic, Hebrew and Arabic; all
# other nonspacing marks are vowel signs, as in Devanagari, Thai and Khmer, or voicing marks (kana).
_ACCENT_BLOCKS = (
    (0x0300, 0x036F), (0x0483, 0x0489), (0x0591, 0x05C7), (0x0610, 0x06ED), (0x1AB0, 0x1AFF),
    (0x1DC0, 0x1DFF), (0x20D0, 0x20FF), (0xFE00, 0xFE2F), (0xE0100, 0xE01EF),
)  # fmt: skip
# Above this share of the characters, a text is in such a script; below, it only quotes one.
_VOWEL_SIGN_SHARE = 0.01
_REPORTED_SHARE = 0.001
_EXAMPLES = 3


def bert_normalizer(lowercase: Lowercase, strip_accents: bool | None) -> normalizers.Normalizer:
    """Return BERT's normalizer; for "turkish", the capitals of Turkish are lower-cased first."""
    bert = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=True,
        # In Turkish, ş and s are two letters.
        strip_accents=bool(strip_accents) if lowercase == "turkish" else strip_accents,
        lowercase=bool(lowercase),
    )
    if lowercase != "turkish":
        return bert
    return normalizers.Sequence([*turkish_capitals(), bert])


def turkish_capitals() -> list[normalizers.Normalizer]:
    """Return the steps that lower-case I and İ as Turkish does, before any other lower-casing."""
    pairs = (("I\u0307", "i"), ("İ", "i"), ("I", "ı"))
    return [normalizers.Replace(capital, small) for capital, small in pairs]


def lower_turkish_capitals(text: str) -> str:
    """Return a text as `turkish_capitals` leaves it."""
    return text.replace("I\u0307", "i").replace("İ", "i").replace("I", "ı")


def strips_accents(lowercase: Lowercase, strip_accents: bool | None) -> bool:
    """Tell whether BERT's normalizer drops accents: by default where it lower-cases."""
    return lowercase is True if strip_accents is None else strip_accents


def check_stripped_marks(
    counts: Mapping[str, int], lowercase: Lowercase, strip_accents: bool | None
) -> None:
    """Report what stripping accents drops from a text, and refuse it where it drops vowels.

    Args:
        counts: of each character of the text.
        lowercase: the option of this name.
        strip_accents: the option of this name; when it is set, nothing is refused.

    Raises:
        UserError: when more than 1 % of the characters have a vowel sign or a voicing mark.
    """
    if not strips_accents(lowercase, strip_accents):
        return
    total = max(1, sum(counts.values()))
    marked = {
        character: count
        for character, count in counts.items()
        if ord(character) > 0x7F and _marks(character)
    }
    vowels = {c: n for c, n in marked.items() if not all(map(_is_accent, _marks(c)))}
    examples = ", ".join(f"{c!r}" for c in _commonest(vowels))
    share = sum(vowels.values()) / total
    if share > _VOWEL_SIGN_SHARE and strip_accents is None:
        raise UserError(
            f"{share:.0%} of the characters of the training text have vowel signs or voicing marks "
            f"({examples}), which tokenizer.lowercase=true drops with the accents: set "
            "tokenizer.strip_accents=false, or to true to drop them."
        )
    if vowels:
        log(
            f"{sum(vowels.values()):,} vowel signs or voicing marks are dropped with the accents "
            f"({examples}): tokenizer.strip_accents=false keeps them"
        )
    accents = {c: n for c, n in marked.items() if c not in vowels}
    if sum(accents.values()) / total > _REPORTED_SHARE:
        pairs = ", ".join(f"{c} becomes {_base(c) or 'nothing'}" for c in _commonest(accents))
        log(
            f"accents are dropped from {sum(accents.values()) / total:.1%} of the characters "
            f"({pairs}): tokenizer.strip_accents=false keeps them"
        )


def _commonest(counts: Mapping[str, int]) -> list[str]:
    return sorted(counts, key=lambda character: (-counts[character], character))[:_EXAMPLES]


def _marks(character: str) -> list[str]:
    parts = unicodedata.normalize("NFD", character)
    return [part for part in parts if unicodedata.category(part) == "Mn"]


def _base(character: str) -> str:
    parts = unicodedata.normalize("NFD", character)
    return "".join(part for part in parts if unicodedata.category(part) != "Mn")


def _is_accent(mark: str) -> bool:
    return any(first <= ord(mark) <= last for first, last in _ACCENT_BLOCKS)
