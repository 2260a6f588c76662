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

# The line that begins an article. Some versions escape the title and some do not, so it may contain
# quotation marks and `>`: it ends with the last mark. A byte-order mark may be left of a file that
# was appended.
_SPACES = rb"(?:[ \t]|\xef\xbb\xbf){0,64}"
_HEAD_ATTRIBUTES = rb"<doc(?=\s)(?:[^>\n]*>|[^\n]*\">)"
_HEAD = re.compile(_SPACES + _HEAD_ATTRIBUTES + rb"\s*$")
_HEAD_LINE = re.compile(rb"\s*" + _SPACES + _HEAD_ATTRIBUTES + rb"[ \t]*\n")
_TITLE = b' title="'
_CLOSE_LINE = b"\n</doc>\n"
# The end of an article, or the beginning of the next one if the end is missing.
_MARK = Delimiter(
    re.compile(rb"\n(?:</doc>|" + _SPACES + rb"<doc\s)"),
    re.compile(rb"\n(?:</?(?:d(?:oc?)?)?|</doc|" + _SPACES + rb"(?:\xef\xbb?|<(?:d(?:oc?)?)?)?)\Z"),
)
_CLOSE = b"\n</doc>"
_MAX_HEAD_BYTES = 1 << 16
_AFTER_TITLE = re.compile(r'\s*"(?:\s+[\w:-]+="[^"]*")*\s*>\s*')
_ATTRIBUTE = re.compile(rb'\stitle="')
# What no escaped text contains: a bracket, or an ampersand that begins no entity.
_NOT_ESCAPED = re.compile(r"[<>]|&(?!(?:\w{1,32}|#\d{1,7}|#[xX][0-9a-fA-F]{1,6});)")


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
    with ByteWindow(source, max(piece.start - 1, 0), options.errors) as window:
        if piece.start and not _skip_previous(window, piece):
            return
        while True:
            for offset, text in _plain_articles(window, source, options):
                if not piece.holds(offset):
                    return
                yield offset, text
            if not _move_to_head(window, source) or not piece.holds(window.offset):
                return
            offset = window.offset
            _skip_head(window)
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
    block = data[window.cursor : last]
    articles = block.split(_CLOSE_LINE)
    # Counted once for all of them, because most files are regular throughout.
    regular = block.count(b"<doc") == block.count(_CLOSE) + 1 == len(articles)
    for article in articles:
        begin = _plain_begin(article)
        if begin is None or not (regular or _is_regular(article)):
            return
        at = window.offset
        window.cursor += len(article) + len(_CLOSE_LINE)
        text = decode(article[begin:], at + begin, source, options.errors)
        line = 0 if article.startswith(b"<") else article.rfind(b"\n", 0, article.index(b"<")) + 1
        yield at + line, text


def _plain_begin(article: bytes) -> int | None:
    """Return where the text of an article begins, after its head and title; None if irregular."""
    end = article.find(b"\n")
    title_begin = article.find(_TITLE, 0, end) + len(_TITLE)
    if (
        title_begin >= len(_TITLE)
        and article.startswith(b"<doc ")
        and article[end - 2 : end] == b'">'
    ):
        title = article[title_begin : end - 2]
        after = end + 1 + len(title)
        if title and article.startswith(title, end + 1) and article[after : after + 1] in b"\n":
            return after + 1
    head = _HEAD_LINE.match(article)
    if not head or _is_title(article[head.end() :].partition(b"\n")[0], head[0]):
        return None
    return head.end()


def _is_regular(article: bytes) -> bool:
    """Tell whether an article holds no other head and no end."""
    return article.count(b"<doc") == 1 and _CLOSE not in article


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


def _move_to_head(window: ByteWindow, source: Source) -> bool:
    """Move to the next line that is not blank, the head of an article; False at the end."""
    while (end := window.line_end(_MAX_HEAD_BYTES)) is not None:
        line = window.data[window.cursor : end]
        if _HEAD.match(line):
            return True
        if line.strip():
            break
        if not line:
            return False
        window.cursor = end
    raise UserError(
        f"Line {line_number(source, window.offset)} of {source.path} is outside <doc> and </doc>: "
        "this is not a WikiExtractor file; set input.kind."
    )


def _skip_head(window: ByteWindow) -> None:
    """Move to the newline that ends the head, or to that of the next line if it is the title."""
    head_end = window.line_end(_MAX_HEAD_BYTES) or window.cursor
    head_bytes = max(head_end - 1 - window.cursor, 0)
    end = window.line_end(_MAX_HEAD_BYTES, skip=head_bytes + 1)
    head = window.data[window.cursor : window.cursor + head_bytes]
    window.cursor += head_bytes
    if end is None:
        return
    first = window.data[window.cursor + 1 : end]
    if _is_title(first, head):
        window.cursor = end - first.endswith(b"\n")


def _is_title(line: bytes, head: bytes) -> bool:
    """Tell whether a line repeats the title in the head of an article, escaped or not."""
    title, first = _ATTRIBUTE.search(head), _plain(line)
    if not title or not first:
        return not first
    value = html.unescape(head[title.end() :].decode("utf-8", "replace")).lstrip()
    # The title may contain quotation marks, and other attributes may follow it.
    return value.startswith(first) and bool(_AFTER_TITLE.fullmatch(value[len(first) :]))


def _plain(raw: bytes) -> str:
    return html.unescape(raw.decode("utf-8", "replace")).strip()


def unescape(text: str) -> str:
    """Return a text with its entities replaced, once, if it is escaped.

    WikiExtractor escapes each `&`, `<` and `>` or, by its version and options, none. So a text with
    one that is not escaped is left as it is, with the entities that are literally in it.
    """
    return text if "&" not in text or _NOT_ESCAPED.search(text) else html.unescape(text)


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
