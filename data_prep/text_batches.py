"""Batches of texts of about equal size: most work on text costs less on many texts at once."""

from collections.abc import Iterable, Iterator


def batch_by_chars(texts: Iterable[str], min_chars: int) -> Iterator[list[str]]:
    """Yield texts in batches that end with the text that reaches `min_chars` characters.

    The last batch may be smaller; no batch is empty.
    """
    batch: list[str] = []
    chars = 0
    for text in texts:
        batch.append(text)
        chars += len(text)
        if chars >= min_chars:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch
