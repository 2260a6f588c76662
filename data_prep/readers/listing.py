"""Listing: the input as a list of sources, cut into tasks of about equal size.

The tasks depend on the sources alone, and each task writes its own shards, so the corpus is the
same for any number of workers.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.compression import is_compressed
from data_prep.readers.files import find_files, saved_dataset
from data_prep.readers.sources import Slice, Source

SLICE_BYTES = 32 << 20
# A huge corpus gets larger tasks instead of many more: every task writes six files or more.
MAX_TASKS = 512


def list_sources(corpora: Mapping[str, InputOptions]) -> list[Source]:
    """Return the sources in reading order: as given, and sorted inside each folder and glob.

    Raises:
        UserError: for a path that does not exist, when there is nothing to read, for a file that
            is listed twice, and for a dataset that cannot be opened.
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

    A task reads one corpus only, because weights apply to whole shards.
    """
    limit = max(SLICE_BYTES, -(-sum(source.size for source in sources) // MAX_TASKS))
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
    # `save_to_disk` writes a folder of Arrow files, which `load_dataset` cannot open.
    if folder := saved_dataset(Path(name), options.split):
        return _file_sources((folder,), corpus, options)
    # Here, because it imports `datasets`, which few corpora need.
    from data_prep.readers.tables.huggingface import count_dataset_shards

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
            "set input.path to a file or folder that is not empty."
        )
    seen: set[Path] = set()
    for source in sources:
        if source.path in seen:
            raise UserError(
                f"The file {source.path} is listed twice in input.paths: remove one of them; to "
                "read a text more often, give it its own corpus with a weight."
            )
        seen.add(source.path)
    return sources


def _cut(source: Source, limit: int) -> Iterator[Slice]:
    step = limit
    if source.shards:
        step = source.size // source.shards
    elif is_compressed(source.name):
        # Decompression can only start at the beginning.
        step = source.size
    for start in range(0, source.size, step):
        yield Slice(source, start, min(start + step, source.size))
