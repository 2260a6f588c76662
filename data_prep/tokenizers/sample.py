"""The sample of the input on which a tokenizer is trained."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.config.schema import CorpusRecipe
from data_prep.readers.dispatch import read_documents
from data_prep.readers.listing import cut_into_tasks
from data_prep.readers.sources import Slice, Source

# Bytes of text per byte of a compressed file: Wikipedia and novels, usual settings.
_EXPANSION = {".gz": 2.7, ".zst": 2.9, ".xz": 3.4, ".bz2": 3.6, ".parquet": 2.0}
# What a paragraph may exceed its share by; only lines that are not prose are longer.
_LONGEST_EXCESS = 1 << 16


def sample_texts(recipe: CorpusRecipe, sources: Sequence[Source]) -> Iterator[str]:
    """Yield paragraphs for training: from each slice its share of `train_bytes`, from its start.

    Shares are proportional to the size of the text, which for a compressed file is estimated from
    its size on disk, so that plain and compressed corpora are covered alike. What a slice lacks of
    its share goes to no other slice. What its last paragraph exceeds the share by is taken off the
    slices after it, so that many small files do not yield a paragraph each.

    The choice depends on the input alone, and memory holds one document at a time.
    """
    pieces = [piece for pieces in cut_into_tasks(sources) for piece in pieces]
    share = recipe.tokenizer.train_bytes / max(1.0, sum(map(_text_bytes, pieces)))
    owed = 0.0
    for piece in pieces:
        owed = min(owed, 0.0) + share * _text_bytes(piece)
        if owed <= 0.0:
            continue
        for paragraph in _paragraphs(recipe, piece):
            paragraph = paragraph[: int(owed) + _LONGEST_EXCESS]
            owed -= len(paragraph.encode())
            yield paragraph
            if owed <= 0.0:
                break


def _text_bytes(piece: Slice) -> float:
    suffix = Path(piece.source.name).suffix
    return (piece.stop - piece.start) * _EXPANSION.get(suffix, 1.0)


def _paragraphs(recipe: CorpusRecipe, piece: Slice) -> Iterator[str]:
    for document in read_documents(piece, recipe.corpora[piece.source.corpus], Counter()):
        yield from document.text.split("\n")
