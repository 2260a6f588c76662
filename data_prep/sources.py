"""The input as a list of files, cut into slices of about equal size.

The cut depends on the files alone. A worker takes a slice, writes the shards of that slice, and
so the corpus is the same for any number of workers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.errors import UserError
from data_prep.options import InputOptions
from data_prep.readers.compression import is_compressed
from data_prep.readers.files import find_files, saved_dataset

SLICE_BYTES = 32 << 20
# A huge corpus gets larger tasks, not more than about so many: three files a shard add up.
TASKS = 512


@dataclass(frozen=True, slots=True)
class Source:
    """One input file, or a dataset; `name` starts at the folder that was given, so it travels."""

    path: Path
    name: str
    size: int
    """Bytes. Of a dataset, which tells only when it is read, `SLICE_BYTES` a shard."""
    corpus: str = "text"
    shards: int = 0
    """In how many parts `datasets` reads a dataset; 0 is a file."""

    def shard_of(self, piece: "Slice") -> int:
        """Return which shard of a dataset a slice stands for."""
        return piece.start // (self.size // self.shards)

    def modified_s(self) -> float:
        """Return when a file was last changed, in seconds since 1970; 0 for a dataset."""
        return 0.0 if self.shards else self.path.stat().st_mtime


@dataclass(frozen=True, slots=True)
class Slice:
    """The bytes [start, stop) of one file; a document belongs to the slice that it begins in."""

    source: Source
    start: int
    stop: int

    def holds(self, offset: int) -> bool:
        """Tell whether a byte, at or after `start`, lies before the end of the slice.

        A compressed file is one slice, so what it holds may lie beyond its size on disk.
        """
        return self.stop == self.source.size or offset < self.stop


def list_sources(corpora: Mapping[str, InputOptions]) -> list[Source]:
    """Return the input in reading order: as given, and sorted inside each folder and glob.

    Raises:
        UserError: for a path that does not exist, when there is nothing to read, for a file that
            is named twice, and for a dataset that cannot be opened.
    """
    sources = []
    for corpus, options in corpora.items():
        if options.dataset:
            sources += _dataset_sources(options.dataset, corpus, options)
        else:
            sources += _file_sources(options.roots, corpus, options)
    return sources


def cut_into_tasks(sources: Sequence[Source]) -> list[list[Slice]]:
    """Group files, and cut large ones, into tasks of about 32 MiB, in reading order.

    A task reads one corpus only, because an epoch weighs whole shards.
    """
    limit = max(SLICE_BYTES, -(-sum(source.size for source in sources) // TASKS))
    tasks: list[list[Slice]] = []
    room = 0
    for piece in (piece for source in sources for piece in _cut(source, limit)):
        size = piece.stop - piece.start
        if size > room or tasks[-1][-1].source.corpus != piece.source.corpus:
            tasks.append([])
            room = limit
        tasks[-1].append(piece)
        room -= size
    return tasks


def _dataset_sources(name: str, corpus: str, options: InputOptions) -> list[Source]:
    # What `save_to_disk` wrote is a folder of Arrow files, which `load_dataset` refuses to open.
    if folder := saved_dataset(Path(name), options.split):
        return _file_sources((folder,), corpus, options)
    from data_prep.readers.hub import (
        count_dataset_shards,  # brings in `datasets`, which few corpora need
    )

    shards = count_dataset_shards(options)
    title = Path(name).name if Path(name).exists() else name
    return [Source(Path(name), title, shards * SLICE_BYTES, corpus, shards)]


def _file_sources(roots: Sequence[Path], corpus: str, options: InputOptions) -> list[Source]:
    sources = [
        Source(path, name, size, corpus)
        for root in roots
        for path, name in find_files(root, options.pattern)
        if (size := path.stat().st_size)
    ]
    if not sources:
        raise UserError(
            f"There is no text in {', '.join(map(str, roots))} (file names {options.pattern!r}): "
            "point input.path at a file or folder that is not empty."
        )
    seen: set[Path] = set()
    for source in sources:
        if source.path in seen:
            raise UserError(
                f"The file {source.path} is named twice by input.paths: take one of them out; to "
                "read a text more often, make it a corpus of its own with a weight."
            )
        seen.add(source.path)
    return sources


def _cut(source: Source, limit: int) -> Iterator[Slice]:
    step = limit
    if source.shards:
        step = source.size // source.shards
    elif is_compressed(source.name):
        # It can only be read from its beginning.
        step = source.size
    for start in range(0, source.size, step):
        yield Slice(source, start, min(start + step, source.size))
