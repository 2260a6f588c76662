"""Near-duplicates: pairs of known similarity are found as often as the theory says."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data_prep.counter_rng import hash64, key_of
from data_prep.dedup import minhash as minhash_module
from data_prep.dedup.minhash import SHINGLE, NearDuplicates, choose_bands
from data_prep.errors import UserError

PAIRS = 300
CHINESE_BASE = 0x4E00


def words(name: str, count: int) -> list[str]:
    return [f"{number:x}" for number in hash64(key_of(name), range(count)).tolist()]


def pair_of_similarity(name: str, similarity: float) -> tuple[str, str, float]:
    """Return two texts that share a beginning, and the Jaccard similarity of their shingles."""
    shingles = 100
    shared = round(shingles * 2 * similarity / (1 + similarity))
    beginning = words(f"{name} shared", shared + SHINGLE - 1)
    texts = [
        " ".join(beginning + words(f"{name} {side}", shingles - shared)) for side in ("one", "two")
    ]
    return texts[0], texts[1], shared / (2 * shingles - shared)


@pytest.mark.parametrize("threshold", [0.5, 0.8])
@pytest.mark.parametrize("distance", [-0.3, -0.15, -0.05, 0.0, 0.05, 0.15])
def test_band_matches_follow_curve(threshold: float, distance: float) -> None:
    """Pairs are found as often as 1 - (1 - s^r)^b predicts."""
    finder = NearDuplicates(threshold)
    found, predicted = 0, 0.0
    for number in range(PAIRS):
        one, two, similarity = pair_of_similarity(f"pair {number}", threshold + distance)
        found += not set(finder.keys(one)).isdisjoint(finder.keys(two))
        predicted += 1.0 - (1.0 - similarity**finder.rows) ** finder.bands
    share = predicted / PAIRS
    # Binomial, five deviations; half a pair more where nearly all or nearly none are found.
    assert abs(found - predicted) < 5 * np.sqrt(PAIRS * share * (1 - share)) + 0.5


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99])
def test_bands_centre_curve_at_threshold(threshold: float) -> None:
    """The curve has its middle at the threshold."""
    bands, rows = choose_bands(threshold)
    assert bands * rows <= 128
    at_the_middle = 1.0 - (1.0 - threshold**rows) ** bands
    below, above = (1.0 - (1.0 - (threshold + shift) ** rows) ** bands for shift in (-0.006, 0.006))
    assert below < 0.5 < above and 0.25 < at_the_middle < 0.75


def test_any_threshold_has_bands() -> None:
    """Any threshold gives bands within the length of a signature."""
    for threshold in (1e-6, 0.001, 0.01, 0.999, 1 - 1e-6):
        bands, rows = choose_bands(threshold)
        assert 1 <= bands * rows <= 128


def test_copies_share_keys_across_paragraphs() -> None:
    """Copies share all keys wherever their paragraphs end."""
    finder = NearDuplicates(0.9)
    text = " ".join(word[:5] for word in words("copy", 50))
    keys = finder.keys(text)
    assert len(set(keys)) == finder.bands
    assert finder.keys(text.replace(" ", "\n", 7)) == keys
    assert finder.keys("漢" * 3 + "\n字" * 9) == finder.keys("漢" * 3 + "字" * 9)


def test_chinese_uses_character_shingles() -> None:
    """Text without spaces is compared by characters."""
    finder = NearDuplicates(0.7)
    drawn = hash64(key_of("chinese"), range(400)) % np.uint64(20_000)
    text = "".join(chr(CHINESE_BASE + int(number)) for number in drawn)
    changed = text[:200] + "一" + text[201:]
    assert not set(finder.keys(text)).isdisjoint(finder.keys(changed))
    assert set(finder.keys(text)).isdisjoint(finder.keys(text[::-1]))


@pytest.mark.parametrize("text", ["", "one", "one two three four", "漢字漢字", "\ud800"])
def test_short_documents_match_exact_copies(text: str) -> None:
    """Documents shorter than a shingle match only equal ones."""
    finder = NearDuplicates(0.5)
    assert len(finder.keys(text)) == 1
    assert finder.keys(text) == finder.keys(text)
    assert finder.keys(text) != finder.keys(text + "x")


def test_five_words_make_one_shingle() -> None:
    """Five words are one shingle, not a short document."""
    finder = NearDuplicates(0.5)
    assert len(finder.keys("one two three four five")) == finder.bands


def test_piecewise_hashing_gives_same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text hashed in pieces has the same keys."""
    finder = NearDuplicates(0.8)
    text = " ".join(words("pieces", 100))
    whole = finder.keys(text)
    monkeypatch.setattr(minhash_module, "_PIECE_CHARS", 10)
    assert finder.keys(text) == whole


def test_keys_are_stable_across_processes() -> None:
    """Another process computes the same keys."""
    text = " ".join(words("process", 60))
    code = (
        "import sys; from data_prep.dedup.minhash import NearDuplicates;"
        "print(*NearDuplicates(0.8).keys(sys.argv[1]))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code, text], capture_output=True, text=True, check=True
    ).stdout
    assert [int(key) for key in printed.split()] == NearDuplicates(0.8).keys(text)


def test_equal_bands_have_different_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Equal numbers in different bands give different keys."""

    class Constant:
        """A MinHash whose signature is one number over and over."""

        hash_token_sets = staticmethod(lambda sets: [range(len(words)) for words in sets])

        @staticmethod
        def digest_matrix_from_flat_token_hashes(*arguments: Any) -> Any:
            return SimpleNamespace(to_rows=lambda: [[7] * arguments[2]])

    monkeypatch.setattr(minhash_module, "_load_minhash", lambda: Constant)
    finder = NearDuplicates(0.8)
    assert len(set(finder.keys("one two three four five"))) == finder.bands == 10


def test_method_states_key_parameters() -> None:
    """The method string states everything that the keys depend on."""
    assert NearDuplicates(0.8).method.endswith("10 bands of 12, 5-shingles")
    assert NearDuplicates(0.5).method != NearDuplicates(0.8).method


def test_missing_rensa_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing `rensa` is reported with the command that installs it."""
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(UserError, match=r"clean\.near_duplicates .* pip install rensa"):
        NearDuplicates(0.8)
