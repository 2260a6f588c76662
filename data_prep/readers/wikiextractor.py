"""WikiExtractor files: articles between `<doc ...>` and `</doc>`."""

import html
import re
from collections import Counter
from collections.abc import Iterator

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.byte_window import ByteWindow, Delimiter, decode, line_number
from data_prep.readers.sources import Slice, Source

Text = str | Iterator[str]

_HEAD = re.compile(rb'<doc(?=\s)(?:[^>]*?\stitle="([^"]*)")?[^>]*>\s*$')
_HEAD_LINE = re.compile(rb'\s*<doc(?=\s)(?:[^>\n]*?\stitle="([^"\n]*)")?[^>\n]*>[ \t]*\n')
_CLOSE_LINE = b"\n</doc>\n"
# The end of an article, or the beginning of the next one if the end is missing.
_MARK = Delimiter(
    re.compile(rb"\n<(?:/doc>|doc\s)"),
    re.compile(rb"\n(?:<(?:/?(?:d(?:oc?)?)?)?|</doc)?\Z"),
)
_CLOSE = b"\n</doc>"
_MAX_HEAD_BYTES = 1 << 16


def read_wikiextractor(
    piece: Slice, options: InputOptions, counts: Counter[str]
) -> Iterator[tuple[int, Text]]:
    """Yield the offset and the raw text of each article that begins in a slice.

    The title, which WikiExtractor repeats as the first line of every article, is dropped: it is not
    a sentence, and an article with nothing else is empty. Long articles are yielded in pieces.

    Raises:
        UserError: for an article without an end, and text outside of articles.
    """
    source = piece.source
    # One byte earlier, so that an article which begins exactly at the start is found.
    with ByteWindow(source, max(piece.start - 1, 0)) as window:
        if piece.start and not _skip_previous(window, piece):
            return
        while True:
            for offset, text in _plain_articles(window, source, options):
                if not piece.holds(offset):
                    return
                yield offset, text
            if (title := _next_title(window, source)) is None:
                return
            if not piece.holds(window.offset):
                return
            offset = window.offset
            _skip_head(window, title)
            yield from _article(window, offset, piece, options)


def _plain_articles(
    window: ByteWindow, source: Source, options: InputOptions
) -> Iterator[tuple[int, str]]:
    """Yield the articles in the window up to the first irregular one, and move past each.

    An irregular article is left to `_article`, which is slower.
    """
    data = window.data
    last = data.rfind(_CLOSE_LINE, window.cursor)
    if last < 0:
        return
    for article in data[window.cursor : last].split(_CLOSE_LINE):
        head = _HEAD_LINE.match(article)
        if not head or b"\n<doc" in article or b"\n</doc" in article:
            return
        title, begin = head[1] or b"", head.end()
        after = begin + len(title)
        if title and article.startswith(title, begin) and article[after : after + 1] in b"\n":
            begin = after + 1
        elif _plain(article[begin:].partition(b"\n")[0]) == _plain(title):
            return
        at = window.offset
        window.cursor += len(article) + len(_CLOSE_LINE)
        text = decode(article[begin:], at + begin, source, options.errors)
        yield at + article.index(b"<"), text


def _skip_previous(window: ByteWindow, piece: Slice) -> bool:
    """Move past an article that began before the slice; return whether the end is in the slice."""
    for offset, _ in window.until(_MARK):
        if not piece.holds(offset):
            return False
    closes = window.data.startswith(b"\n</", window.cursor)
    window.cursor = min(window.cursor + 1, len(window.data))
    if closes:
        window.skip_line()
    return True


def _next_title(window: ByteWindow, source: Source) -> bytes | None:
    """Move to the next line that is not blank, the head of an article, and return its title."""
    while (end := window.line_end(_MAX_HEAD_BYTES)) is not None:
        line = window.data[window.cursor : end]
        if head := _HEAD.match(line):
            return head[1] or b""
        if line.strip():
            break
        if not line:
            return None
        window.cursor = end
    raise UserError(
        f"Line {line_number(source, window.offset)} of {source.path} is outside <doc> and </doc>: "
        "this is not a WikiExtractor file; set input.kind."
    )


def _skip_head(window: ByteWindow, title: bytes) -> None:
    """Move to the newline that ends the head, or to that of the next line if it is the title."""
    end = window.line_end(_MAX_HEAD_BYTES) or window.cursor
    window.cursor = max(end - 1, window.cursor)
    end = window.line_end(_MAX_HEAD_BYTES, skip=1) or window.cursor
    first = window.data[window.cursor + 1 : end]
    if first.strip() == title.strip() or _plain(first) == _plain(title):
        window.cursor = end - first.endswith(b"\n")


def _plain(raw: bytes) -> str:
    return html.unescape(raw.decode("utf-8", "replace")).strip()


def _article(
    window: ByteWindow, offset: int, piece: Slice, options: InputOptions
) -> Iterator[tuple[int, Text]]:
    """Yield the article whose text follows the newline at the cursor, and move past its end."""
    source, errors = piece.source, options.errors
    match = window.find(_MARK.pattern)
    if match and match[0] == _CLOSE:
        begin = window.cursor + 1
        raw = window.data[begin : match.start()]
        yield offset, decode(raw, window.base + begin, source, errors)
    elif not match and not window.ended:
        spans = window.until(_MARK)
        yield offset, (decode(raw, at, source, errors) for at, raw in spans)
        for _ in spans:
            pass
        match = _MARK.pattern.match(window.data, window.cursor)
    if not match or match[0] != _CLOSE:
        raise UserError(
            f"The <doc> at line {line_number(source, offset)} of {source.path} is never closed by "
            "</doc>: the file is damaged; extract it again."
        )
    window.cursor = match.start() + 1
    window.skip_line()
