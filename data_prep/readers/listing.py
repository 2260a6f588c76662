"""Listing: the input as a list of sources, cut into tasks of about equal size.

The tasks depend on the sources alone, and each task writes its own shards, so the corpus is the
same for any number of workers.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.sources import Slice, Source
from data_prep.readers.storage.compression import is_compressed
from data_prep.readers.storage.files import Found, find_files, saved_dataset
from data_prep.readers.storage.names import PassedOver, portable_name
from data_prep.readers.storage.remote import RemotePath, shown_url
from data_prep.readers.structured.delimited import CSV_SUFFIXES

SLICE_BYTES = 32 << 20
# A huge corpus gets larger tasks instead of many more: every task writes six files or more.
MAX_TASKS = 512
# A task may differ from its share by this fraction, so that small files are not cut.
_SLACK = 16
# So many tasks at the end of a corpus are made equal, instead of one that is small.
_EVENED_TASKS = 3
# Read from their first byte on, over a connection; on a disk they are mapped into memory.
_STREAMED = (".arrow", ".feather")
# A line end in a table may be inside a field, so only reading from the beginning tells.
_WHOLE = (".csv", ".tsv", ".tab")


@dataclass(frozen=True)
class InputListing:
    """The sources of all corpora, and the names in their folders that are not read."""

    sources: list[Source]
    passed: dict[str, PassedOver] = field(default_factory=dict)


def list_sources(corpora: Mapping[str, InputOptions]) -> list[Source]:
    """Return the sources in reading order: as given, and sorted inside each folder and glob.

    Raises:
        UserError: for a path that does not exist or cannot be read, when there is nothing to read,
            for a file that is listed twice, and for a dataset that cannot be opened.
    """
    return list_input(corpora).sources


def list_input(corpora: Mapping[str, InputOptions]) -> InputListing:
    """Return the sources as `list_sources` does, with what is passed over in each corpus."""
    listing = InputListing([])
    for corpus, options in corpora.items():
        passed = listing.passed.setdefault(corpus, PassedOver())
        if options.dataset:
            listing.sources.extend(_dataset_sources(options.dataset, corpus, options, passed))
        else:
            listing.sources.extend(_file_sources(options.roots, corpus, options, passed))
    return listing


def cut_into_tasks(sources: Sequence[Source]) -> list[list[Slice]]:
    """Return the slices of each task, of about equal bytes: 32 MiB, or a little less at the end.

    Files are cut where a task ends, unless one of them begins or ends near there. A compressed file
    and a shard of a dataset are never cut, so tasks with such may be larger. A task reads one
    corpus only, because weights apply to whole shards.
    """
    limit = SLICE_BYTES
    # Doubled, so that a file that changes its size seldom changes all tasks.
    while limit * MAX_TASKS < sum(source.size for source in sources):
        limit *= 2
    groups = itertools.groupby(sources, key=lambda source: source.corpus)
    return [task for _, group in groups for task in _equal_tasks(list(group), limit)]


def share_of_array(sizes: Sequence[int], count: int) -> list[int]:
    """Return which of `count` array tasks runs each task: contiguous ones of about equal bytes."""
    total = max(sum(sizes), 1)
    middles = (end - size / 2 for end, size in zip(itertools.accumulate(sizes), sizes, strict=True))
    return [min(int(middle * count / total), count - 1) for middle in middles]


def _dataset_sources(
    name: str, corpus: str, options: InputOptions, passed: PassedOver
) -> list[Source]:
    # `save_to_disk` writes a folder of Arrow files, which `load_dataset` cannot open.
    if folder := saved_dataset(Path(name), options.split):
        return _file_sources((folder,), corpus, options, passed)
    # Here, because it imports `datasets`, which few corpora need.
    from data_prep.readers.tables.huggingface import count_dataset_shards

    shards = count_dataset_shards(options)
    title = Path(name).name if Path(name).exists() else name
    return [Source(Path(name), title, shards * SLICE_BYTES, corpus, shards)]


def _file_sources(
    roots: tuple[Path | str, ...], corpus: str, options: InputOptions, passed: PassedOver
) -> list[Source]:
    found = [file for root in roots for file in find_files(root, options.pattern, passed)]
    if not found:
        others = f"; passed over: {passed}" if passed.names else ""
        raise UserError(
            f"There is no text in {', '.join(map(_shown, roots))} (file names {options.pattern!r}"
            f"{others}): set input.path to a file or folder that is not empty."
        )
    if len(roots) > 1:
        _refuse_repeats(found)
    return [Source(file.path, portable_name(file.name), file.size, corpus) for file in found]


def _refuse_repeats(found: list[Found]) -> None:
    seen: dict[object, Found] = {}
    for file in found:
        key = _identity_of(file)
        if key in seen:
            first = seen[key].path
            linked = "" if str(first) == str(file.path) else f" (as {first})"
            raise UserError(
                f"The file {file.path} is listed twice in input.paths{linked}: remove one of them; "
                "to read a text more often, give it its own corpus with a weight."
            )
        seen[key] = file


def _identity_of(file: Found) -> object:
    if isinstance(file.path, RemotePath):
        return file.path.path
    # Hard links are files of their own, which people make on purpose.
    return file.path.resolve()


def _shown(root: Path | str) -> str:
    return shown_url(root) if isinstance(root, str) else str(root)


def _equal_tasks(sources: Sequence[Source], limit: int) -> list[list[Slice]]:
    left = sum(source.size for source in sources)
    tasks: list[list[Slice]] = []
    pieces = _Pieces(sources)
    while left:
        # Only the last few tasks depend on what is left, so that a file that is corrected or added
        # at the end leaves the tasks before it as they are.
        few = left <= _EVENED_TASKS * limit
        share = left // -(-left // (limit + limit // _SLACK)) if few else limit
        tasks.append(pieces.take(share))
        left -= sum(piece.size for piece in tasks[-1])
    return tasks


class _Pieces:
    """The bytes of some sources, taken from the front."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._pieces = [piece for source in sources for piece in _smallest_pieces(source)][::-1]

    def take(self, share: int) -> list[Slice]:
        """Take about `share` bytes, and at least one piece."""
        taken: list[Slice] = []
        slack = share // _SLACK
        room = share
        while self._pieces and room > 0:
            piece = self._pieces.pop()
            rest = piece.size - room
            if rest > slack and room > slack and _is_cuttable(piece.source):
                cut = piece.start + room
                self._pieces.append(Slice(piece.source, cut, piece.stop))
                piece = Slice(piece.source, piece.start, cut)
            elif taken and rest > room:
                # The edge before the piece is nearer to the end of the share than that behind it.
                self._pieces.append(piece)
                break
            taken.append(piece)
            room -= piece.size
        return taken


def _smallest_pieces(source: Source) -> Iterator[Slice]:
    """Yield the shards of a dataset, or a whole file."""
    step = source.size // source.shards if source.shards else max(source.size, 1)
    for start in range(0, source.size, step):
        yield Slice(source, start, min(start + step, source.size))


def _is_cuttable(source: Source) -> bool:
    """Tell whether reading can start anywhere.

    Decompression can only start at the beginning, and a row of a CSV file has no mark of its own.
    """
    if source.shards or is_compressed(source.name) or source.name.lower().endswith(CSV_SUFFIXES):
        return False
    if isinstance(source.path, RemotePath):
        return source.path.ranged and Path(source.name).suffix not in _STREAMED
    return True
