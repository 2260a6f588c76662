"""The input as a list of files, cut into slices of about equal size.

The cut depends on the files alone. A worker takes a slice, writes the shards of that slice, and
so the corpus is the same for any number of workers.
"""

import fnmatch
import importlib.resources
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.errors import UserError
from data_prep.options import InputOptions

SLICE_BYTES = 32 << 20
# A huge corpus gets larger tasks, not more than about so many: three files a shard add up.
TASKS = 512
_SAMPLE = Path("sample")


@dataclass(frozen=True, slots=True)
class Source:
    """One input file; `name` starts at the folder that the user gave, so it travels."""

    path: Path
    name: str
    size: int
    corpus: str = "text"
    changed: float = 0.0  # when it was last written, seconds


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
    """Return the input files in reading order: as given, and sorted inside each folder.

    Raises:
        UserError: for a path that does not exist, and when there is nothing to read.
    """
    sources = []
    for corpus, options in corpora.items():
        found = [
            source for root in options.roots for source in _sources_under(root, options.pattern)
        ]
        if not found:
            roots = ", ".join(str(root) for root in options.roots)
            raise UserError(
                f"There is no text in {roots} (file names {options.pattern!r}): "
                "point input.path at a file or folder that is not empty."
            )
        sources += [replace(source, corpus=corpus) for source in found]
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


def _sources_under(root: Path, pattern: str) -> Iterator[Source]:
    if root == _SAMPLE and not root.exists():
        root = Path(str(importlib.resources.files("data_prep"))) / "sample" / "novels"
    if root.is_file():
        paths = [root]
    elif root.is_dir():
        paths = sorted(_visible_files(root, pattern), key=lambda path: path.relative_to(root).parts)
    else:
        raise UserError(f"The input {root} does not exist: correct input.path.")
    for path in paths:
        if not path.exists():
            raise UserError(
                f"The input {path} is a link to nothing: remove it, or restore its target."
            )
        about = path.stat()
        if about.st_size:
            name = path.relative_to(root.parent).as_posix()
            yield Source(path, name, about.st_size, changed=about.st_mtime)


def _visible_files(root: Path, pattern: str) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and fnmatch.fnmatchcase(name, pattern):
                yield Path(folder, name)


def _cut(source: Source, limit: int) -> Iterator[Slice]:
    # A compressed file can only be read from its beginning.
    step = source.size if source.name.endswith(".gz") else limit
    for start in range(0, source.size, step):
        yield Slice(source, start, min(start + step, source.size))
