"""A look at every input file before work begins: its format, and whether it can be read at all."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any

from data_prep.config.schema import InputOptions
from data_prep.progress import log
from data_prep.readers.formats import check_format
from data_prep.readers.listing import InputListing
from data_prep.readers.sources import Source
from data_prep.readers.storage.compression import window_bytes
from data_prep.readers.storage.names import printable

# The first bytes of many files are read at once: on a network most of the time is spent waiting.
_THREADS = 16
_PREFIXES = ("", "k", "M", "G", "T")
_SHOWN_FORMATS = 12
_USUAL_WINDOW_BYTES = 1 << 27


def survey_input(listing: InputListing, corpora: Mapping[str, InputOptions]) -> dict[str, Any]:
    """Log what was found and what is passed over, and return it for the manifest.

    Raises:
        UserError: for the first file that cannot be read, such as an archive.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        formats = list(pool.map(lambda source: _format(source, corpora), listing.sources))
        windows = list(pool.map(_window, listing.sources))
    facts = {corpus: _facts_of(corpus, listing, formats) for corpus in corpora}
    for corpus in corpora:
        for line in _lines(corpus, facts[corpus], listing):
            log(line)
    _warn_of_windows(listing.sources, windows)
    return facts


def size_in_words(size: float) -> str:
    """Return a number of bytes with three digits, such as "61.2 MB"."""
    prefix = 0
    while size >= 1000 and prefix < len(_PREFIXES) - 1:
        size, prefix = size / 1000, prefix + 1
    return f"{size:.3g} {_PREFIXES[prefix]}B"


def _format(source: Source, corpora: Mapping[str, InputOptions]) -> str:
    """Return the format of a file with the suffixes of its name, such as "jsonl (.jsonl.gz)"."""
    if source.shards:
        return "dataset"
    kind = check_format(source, corpora[source.corpus]).kind
    suffixes = [each for each in PurePosixPath(source.name).suffixes[-2:] if _is_suffix(each)]
    return f"{kind} ({''.join(suffixes)})" if suffixes else str(kind)


def _window(source: Source) -> int:
    return 0 if source.shards else window_bytes(source.path)


def _warn_of_windows(sources: Sequence[Source], windows: Sequence[int]) -> None:
    """Log the largest window beyond what Zstandard's tool reads without an option."""
    largest = max(zip(windows, range(len(windows)), strict=True), default=(0, 0))
    if largest[0] > _USUAL_WINDOW_BYTES:
        log(
            f"{sources[largest[1]].path} was compressed with a window of "
            f"{size_in_words(largest[0])}: a worker that reads such files needs this much more "
            "memory; with little, compress them again without --long."
        )


def _is_suffix(text: str) -> bool:
    """Tell a suffix from a part of a name such as v1.0 or train.00001.txt."""
    return len(text) <= 9 and text[1:].isalnum() and not text[1:].isdigit()


def _facts_of(corpus: str, listing: InputListing, formats: Iterable[str]) -> dict[str, Any]:
    counts: dict[str, dict[str, int]] = {}
    for source, form in zip(listing.sources, formats, strict=True):
        if source.corpus == corpus:
            count = counts.setdefault(form, {"files": 0, "bytes": 0})
            count["files"] += source.shards or 1
            count["bytes"] += 0 if source.shards else source.size
    return {
        "files": sum(count["files"] for count in counts.values()),
        "bytes": sum(count["bytes"] for count in counts.values()),
        "formats": dict(sorted(counts.items())),
        "passed_over": listing.passed[corpus].facts() if corpus in listing.passed else {},
    }


def _lines(corpus: str, facts: dict[str, Any], listing: InputListing) -> Iterator[str]:
    formats = sorted(facts["formats"].items(), key=lambda item: -item[1]["bytes"])
    listed = [
        f"{count['files']:,} {printable(form)}, {size_in_words(count['bytes'])}"
        for form, count in formats[:_SHOWN_FORMATS]
    ]
    more = "; ..." if len(formats) > _SHOWN_FORMATS else ""
    files = "file" if facts["files"] == 1 else "files"
    total = f"{facts['files']:,} {files}, {size_in_words(facts['bytes'])}"
    yield f"input {corpus}: {total}: {'; '.join(listed)}{more}"
    if (passed := listing.passed.get(corpus)) and passed.names:
        yield f"input {corpus}: passed over {passed}"
