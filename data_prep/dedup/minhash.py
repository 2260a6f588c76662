"""Near-duplicates: documents that share most of their word sequences, found by MinHash bands.

A document is the set of its 5-word shingles. MinHash (Broder, "On the resemblance and containment
of documents", SEQUENCES 1997) keeps a signature of which each number agrees between two documents
with the probability of their Jaccard similarity s. The signature is cut into b bands of r numbers,
so two documents agree in some whole band with the probability 1 - (1 - s^r)^b (Leskovec,
Rajaraman, Ullman, "Mining of Massive Datasets", 3.4): an S-curve with a steep middle.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xxhash

from data_prep.counter_rng import UInt64Array
from data_prep.dedup.rolling_hash import hash_ngrams
from data_prep.errors import UserError

SHINGLE = 5
# More would make the curve steeper, and every band takes 8 bytes a document.
_MAX_SIGNATURE = 128
# How far from the threshold the middle of the curve may be.
_TOLERANCE = 0.005
_SEED = 1
# Scripts with spaces have one in four to eight characters, those without next to none.
_CHARS_A_SPACE = 20
# Words are hashed in pieces of about this many characters: a word is an object of 50 bytes.
_PIECE_CHARS = 1 << 20


class NearDuplicates:
    """Computes the band keys of documents; two that share a key count as near-duplicates.

    Of pairs at exactly the threshold half are found; the curve is steep on both sides. The keys
    are the same in every process and on every machine with the same version of `rensa`.

    Args:
        threshold: the Jaccard similarity in the middle of the curve, above 0 and below 1.

    Attributes:
        bands: how many keys a document has; a document of fewer than 5 words has one.
        rows: numbers of the signature in each band.
        method: everything the keys depend on, for the manifest.

    Raises:
        UserError: when `rensa` is not installed.
    """

    def __init__(self, threshold: float) -> None:
        self._minhash = _load_minhash()
        self.bands, self.rows = choose_bands(threshold)
        version = getattr(self._minhash, "ALGORITHM_VERSION", 1)
        self.method = f"R-MinHash {version}, {self.bands} bands of {self.rows}, {SHINGLE}-shingles"

    def keys(self, text: str) -> list[int]:
        """Return the 64-bit keys of a document; a newline counts as a space between words."""
        shingles = hash_ngrams(self._elements(text), SHINGLE)
        if not len(shingles):
            whole = " ".join(text.split()).encode("utf-8", "surrogatepass")
            # A seed that no band uses.
            return [xxhash.xxh3_64_intdigest(whole, seed=_MAX_SIGNATURE)]
        ends = np.array([0, len(shingles)], np.uint64)
        digests = self._minhash.digest_matrix_from_flat_token_hashes(
            shingles, ends, self.bands * self.rows, _SEED
        )
        signature = np.array(digests.to_rows()[0], "<u4").tobytes()
        width = 4 * self.rows
        # The seed distinguishes equal numbers in different bands.
        return [
            xxhash.xxh3_64_intdigest(signature[band * width : (band + 1) * width], seed=band)
            for band in range(self.bands)
        ]

    def _elements(self, text: str) -> UInt64Array:
        """Return a number for each word, or for each character where words have no spaces."""
        if text.count(" ") * _CHARS_A_SPACE < len(text):
            characters = "".join(text.split()).encode("utf-32-le", "surrogatepass")
            return np.frombuffer(characters, "<u4").astype(np.uint64)
        hashes = [
            np.array(self._minhash.hash_token_sets([piece.split()])[0], np.uint64)
            for piece in _pieces(text)
        ]
        return hashes[0] if len(hashes) == 1 else np.concatenate(hashes)


def choose_bands(threshold: float) -> tuple[int, int]:
    """Return how many bands of how many rows put the middle of the curve at the threshold.

    1 - (1 - s^r)^b is one half at s = (1 - 2^(-1/b))^(1/r). Of all pairs within the length of a
    signature whose middle is close to the threshold, that with most rows is the steepest; if
    there is none, the closest is taken.
    """
    choices = [
        (bands, rows)
        for rows in range(1, _MAX_SIGNATURE + 1)
        for bands in range(1, _MAX_SIGNATURE // rows + 1)
    ]
    distances = {choice: abs(_middle(*choice) - threshold) for choice in choices}
    close = [choice for choice in choices if distances[choice] <= _TOLERANCE]
    if not close:
        return min(choices, key=distances.__getitem__)
    rows = max(rows for _, rows in close)
    return min((choice for choice in close if choice[1] == rows), key=distances.__getitem__)


def _middle(bands: int, rows: int) -> float:
    return float((1.0 - 2.0 ** (-1.0 / bands)) ** (1.0 / rows))


def _pieces(text: str) -> Iterator[str]:
    """Yield the text in pieces that end at a space."""
    start = 0
    while len(text) - start > _PIECE_CHARS and (
        (stop := text.find(" ", start + _PIECE_CHARS)) != -1
    ):
        yield text[start:stop]
        start = stop
    yield text[start:]


def _load_minhash() -> Any:
    try:
        from rensa import RMinHash
    except ImportError as error:
        raise UserError(
            "clean.near_duplicates needs the library rensa: pip install rensa, or set it to 0."
        ) from error
    return RMinHash
