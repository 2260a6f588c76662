"""What an input may get wrong before it is refused: broken records, and documents too long."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError

# Where a long document may be cut, when it has no end of a paragraph near the limit.
_SPACES = ("\n", " ", "\t", "\u3000")


def skip_broken(
    place: Callable[[], str], problem: str, options: InputOptions, counts: Counter[str]
) -> None:
    """Count a broken record, or refuse the input when there are too many.

    Args:
        place: names the record, as in "line 3 of a.txt"; it is called for the complaint only,
            because a line number takes reading the file.
        problem: what is wrong and what to do, without a full stop.
        options: say how many may be skipped.
        counts: holds how many were, in this task.

    Raises:
        UserError: above `max_bad_records`.
    """
    counts["broken"] += 1
    if (allowed := options.max_bad_records) >= counts["broken"]:
        return
    where = place()
    raise UserError(
        f"{where[0].upper()}{where[1:]} {problem}; or let more such records be skipped than "
        f"input.max_bad_records={allowed}."
    )


def fit_document(
    pieces: Iterable[str],
    place: Callable[[], str],
    options: InputOptions,
    counts: Counter[str],
    *,
    wrapped: bool,
) -> Iterator[str]:
    """Yield a document of any length as `options.long_documents` has it, in bounded memory.

    One that fits is yielded as it is. What is cut off depends on the text alone, not on the
    pieces that it comes in.

    Args:
        pieces: the document, in order.
        place: names the document in a complaint.
        options: the longest document, and what becomes of longer ones.
        counts: `divided` or `too_long` goes up by one for a longer document.
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
            f"The document that begins at {place()} has more than {limit} characters: divide it, "
            "raise input.max_document_chars, or set input.long_documents to divide or drop."
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

    Looking no farther back than half of it keeps the number of parts small.
    """
    low, high = start + (limit + 1) // 2, start + limit
    for mark in ("\n\n", *_SPACES) if wrapped else _SPACES:
        if (found := text.rfind(mark, low, high + 1)) > start:
            return min(found + len(mark), high)
    return high
