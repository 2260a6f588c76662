"""WikiExtractor's JSON output (`--json`): JSON lines whose texts have a title and are escaped."""

from collections import Counter
from collections.abc import Iterator
from functools import partial

from data_prep.config.schema import InputOptions
from data_prep.readers.byte_window import line_location
from data_prep.readers.sources import Slice
from data_prep.readers.structured.jsonl import json_lines, records_of_line
from data_prep.readers.structured.records import kept_text
from data_prep.readers.wikiextractor import unescape


def read_wikiextractor_json(
    piece: Slice, options: InputOptions, counts: Counter[str]
) -> Iterator[tuple[int, str]]:
    """Yield the offset and the text of each article, without the title if the text repeats it.

    Raises:
        UserError: as `read_json_lines`.
    """
    for offset, line in json_lines(piece, options, counts):
        location = partial(line_location, piece.source, offset)
        for record in records_of_line(line, location, options, counts):
            if (text := kept_text(record, location, options, counts)) is not None:
                title = record.get("title")
                yield offset, _without_title(text, title) if isinstance(title, str) else text


def _without_title(text: str, title: str) -> str:
    first, newline, rest = text.partition("\n")
    repeated = newline and unescape(first).strip() == unescape(title).strip()
    return rest if repeated else text
