"""Datasets of the Hugging Face hub, or folders that `datasets` can open, read as streams."""

import functools
from collections import Counter
from collections.abc import Iterator
from typing import Any

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers.sources import Slice
from data_prep.readers.tables.columns import Text, check_field, read_column

_BATCH_ROWS = 128
_MAX_PROBLEM_CHARS = 300


def count_dataset_shards(options: InputOptions) -> int:
    """Return the number of shards of a dataset, which can be read independently.

    Raises:
        UserError: when it cannot be opened.
    """
    return int(_open(options.dataset, options.subset, options.split).num_shards)


def read_dataset(
    piece: Slice, options: InputOptions, counts: Counter[str]
) -> Iterator[tuple[int, Text]]:
    """Yield the texts of one shard of a dataset, each with its row number after `piece.start`.

    Raises:
        UserError: when the dataset cannot be read.
    """
    source = piece.source
    dataset = _open(options.dataset, options.subset, options.split)
    if dataset.num_shards != source.shards:
        raise UserError(
            f"The dataset {options.dataset} has {dataset.num_shards} shards and had "
            f"{source.shards} when the tasks were listed: start again."
        )
    shard = dataset.shard(num_shards=source.shards, index=source.shard_of(piece))
    row = piece.start
    for batch in _batches(shard, options):
        field = check_field(batch.schema, f"the dataset {options.dataset}", options)
        column = batch.column(field[0])
        for chunk in column.chunks:
            yield from read_column(chunk, field, row, source.name, options, counts)
            row += len(chunk)


@functools.lru_cache(maxsize=8)
def _open(name: str | None, subset: str | None, split: str) -> Any:
    # Takes half a second and 100 MB, so only where it is needed.
    import datasets

    try:
        return datasets.load_dataset(name, subset, split=split, streaming=True)
    except Exception as error:  # loaders raise the errors of their file systems and formats
        raise _unreadable(name, error) from error


def _batches(shard: Any, options: InputOptions) -> Iterator[Any]:
    tables = iter(shard.with_format("arrow").iter(batch_size=_BATCH_ROWS))
    while True:
        try:
            table = next(tables)
        except StopIteration:
            return
        except Exception as error:  # as above, and the network
            raise _unreadable(options.dataset, error) from error
        yield table


def _unreadable(name: str | None, error: Exception) -> UserError:
    problem = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return UserError(
        f"The dataset {name} cannot be read ({problem[:_MAX_PROBLEM_CHARS]}): correct "
        "input.dataset, input.subset or input.split."
    )
