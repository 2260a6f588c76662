"""Names of input files: how they are written, and which of them hold no text by convention."""

import fnmatch
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

_ESCAPED = re.compile(r"\\x[0-9a-f]{2}")
_SURROGATES = re.compile("[\udc80-\udcff]")
# Checksums that Hadoop, and people, put beside each file.
_CHECKSUMS = (".crc", ".md5", ".sha1", ".sha256", ".sha512")
_OF_FILE_MANAGERS = ("thumbs.db", "desktop.ini")
# What clones of data sets hold beside their data, in lower case and without suffix; README.zh-cn
# and LICENSE-MIT as well.
_ABOUT = re.compile(
    r"(readme|license|licence|copying|notice)(-[a-z]{2,6}|[.-][a-z]{2}(-[a-z]{2,4})?)?|"
    "citation|contributing|changelog|authors|dataset[_-]infos?|dataset-metadata|dataset_card|"
    "datasheet|croissant|(md5|sha1|sha256|sha512)sums?|checksums"
)
_ABOUT_SUFFIXES = (".md", ".markdown", ".rst", ".txt", ".html", ".json", ".cff", ".bib", ".pdf")
# Suffixes of data: a pattern such as *.txt names no file about the data.
_DATA_SUFFIXES = ("", ".txt", ".json")
_SHOWN_NAMES = 5


@dataclass
class PassedOver:
    """The names that were found in the input and are not read, by reason."""

    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        """Record a name under a reason, such as "hidden"."""
        self.names.setdefault(reason, []).append(portable_name(name))

    def facts(self) -> dict[str, dict[str, object]]:
        """Return how many names there are for each reason, and the first few."""
        return {
            reason: {"count": len(names), "names": sorted(names)[:_SHOWN_NAMES]}
            for reason, names in sorted(self.names.items())
        }

    def __str__(self) -> str:
        return "; ".join(
            f"{len(names):,} {reason} ({some_of(names)})"
            for reason, names in sorted(self.names.items())
        )


def some_of(names: Iterable[str]) -> str:
    """Return the first few of some names, for a message."""
    listed = sorted(names)
    more = ", ..." if len(listed) > _SHOWN_NAMES else ""
    return ", ".join(map(printable, listed[:_SHOWN_NAMES])) + more


def portable_name(name: str) -> str:
    r"""Return a file name as valid Unicode: a byte that is not UTF-8 becomes \xNN.

    Different names stay different: where a name would look like an escaped one, its backslashes
    are escaped.
    """
    if not _SURROGATES.search(name) and not _ESCAPED.search(name):
        return name
    return _SURROGATES.sub(
        lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", name.replace("\\", "\\x5c")
    )


def printable(name: str) -> str:
    """Return a name on one line, with control characters escaped."""
    shown = portable_name(name)
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown)


def reason_to_pass(name: str, pattern: str) -> str | None:
    """Return why a file or folder of this name is not read, or None.

    Args:
        name: without the folders above it.
        pattern: of `input.pattern`; what it names explicitly is read.
    """
    if name.startswith(".") and not pattern.startswith("."):
        return "hidden"
    # Spark's _SUCCESS and _metadata; but year=2020 is often a folder _year=2020.
    if name.startswith("_") and "=" not in name and not pattern.startswith("_"):
        return "internal"
    if name.lower() in _OF_FILE_MANAGERS:
        return "internal"
    if name.lower().endswith(_CHECKSUMS) and not pattern.lower().endswith(_CHECKSUMS):
        return "internal"
    return None


def matches(name: str, pattern: str) -> bool:
    """Tell whether a file name has the form of `input.pattern`."""
    return fnmatch.fnmatchcase(name, pattern)


def is_about_data(name: str, pattern: str) -> bool:
    """Tell whether a file of this name describes the data beside it, such as a README.

    A pattern that names it, as README* and *.md do, makes it data.
    """
    lower, asked = name.lower(), pattern.lower()
    suffix = next((each for each in _ABOUT_SUFFIXES if lower.endswith(each)), "")
    match = _ABOUT.fullmatch(lower.removesuffix(suffix))
    if not match:
        return False
    by_suffix = suffix not in _DATA_SUFFIXES and asked.endswith(suffix)
    return not by_suffix and re.split("[.-]", lower)[0] not in asked


def endings(names: Iterable[str]) -> Iterator[str]:
    """Yield the suffixes of some names with their counts, most frequent first, for a message."""
    counts: dict[str, int] = {}
    for name in names:
        suffix = "".join(PurePosixPath(name).suffixes[-2:]) or "no suffix"
        counts[suffix] = counts.get(suffix, 0) + 1
    for suffix, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        yield f"{printable(suffix)} ({count:,})"
