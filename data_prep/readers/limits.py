"""Limits of an input: how many records may be broken, and how long documents may be."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError

# Where a long document may be cut if no paragraph ends near the limit.
_SPACES = ("\n", " ", "\t", "\u3000")


def skip_broken(
    location: Callable[[], str], problem: str, options: InputOptions, counts: Counter[str]
) -> None:
    """Count a broken record, or raise when there are too many.

    Args:
        location: returns where the record is, as in "line 3 of a.txt"; called for the error message
            only, because finding a line number reads the file.
        problem: what is wrong and what to do, without a full stop.
        options: how many may be skipped.
        counts: how many were skipped in this task; incremented.

    Raises:
        UserError: above `max_bad_records`.
    """
    counts["broken"] += 1
    if (allowed := options.max_bad_records) >= counts["broken"]:
        return
    where = location()
    raise UserError(
        f"{where[0].upper()}{where[1:]} {problem}; or allow more such records than "
        f"input.max_bad_records={allowed}."
    )


def fit_document(
    pieces: Iterable[str],
    location: Callable[[], str],
    options: InputOptions,
    counts: Counter[str],
    *,
    wrapped: bool,
) -> Iterator[str]:
    """Yield a document whole, or divided or dropped by `options.long_documents`, in bounded memory.

    A document within the limit is yielded unchanged. Cuts depend on the text alone, not on the
    pieces in which it arrives.

    Args:
        pieces: the document, in order.
        location: returns where the document is, for the error message.
        options: the limit, and what is done with longer documents.
        counts: `divided` or `too_long` is incremented for a longer document.
        wrapped: whether an empty line, not every newline, ends a paragraph.

    Raises:
        UserError: for a longer document under "refuse".
    """
    limit = options.max_document_chars
    parts = _windows(pieces, limit, wrapped)
    first = next(parts)
    second = next(parts, None)
    if second is None:
        yield first
    elif options.long_documents == "refuse":
        raise UserError(
            f"The document that begins at {location()} has more than {limit} characters: divide "
            "it, raise input.max_document_chars, or set input.long_documents to divide or drop."
        )
    elif options.long_documents == "drop":
        counts["too_long"] += 1
    else:
        counts["divided"] += 1
        yield first
        yield second
        yield from parts


def _windows(pieces: Iterable[str], limit: int, wrapped: bool) -> Iterator[str]:
    """Yield the text in parts of at most `limit` characters; only the first may be empty."""
    held: list[str] = []
    chars = parts = 0
    for piece in pieces:
        held.append(piece)
        chars += len(piece)
        if chars > limit:
            text = "".join(held)
            start = 0
            while len(text) - start > limit:
                cut = _cut(text, start, limit, wrapped)
                if (part := text[start:cut]).strip():
                    parts += 1
                    yield part
                start = cut
            held = [text[start:]]
            chars = len(held[0])
    rest = "".join(held)
    if not parts or rest.strip():
        yield rest


def _cut(text: str, start: int, limit: int, wrapped: bool) -> int:
    """Return where the part that begins at `start` ends: after a paragraph, a word, or anywhere.

    Only the second half is searched, which keeps the number of parts small.
    """
    low, high = start + (limit + 1) // 2, start + limit
    for mark in ("\n\n", *_SPACES) if wrapped else _SPACES:
        if (found := text.rfind(mark, low, high + 1)) > start:
            return min(found + len(mark), high)
    return high
