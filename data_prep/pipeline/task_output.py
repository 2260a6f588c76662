"""Parts: the output of a task, in pieces of bounded size.

A part has one train shard, one validation shard, and a key index if duplicates are dropped.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import SPLITS, Documents, ShardCounts, ShardWriter, shard_files
from data_prep.counter_rng import UInt64Array
from data_prep.dedup.key_index import KeyIndex, Layout
from data_prep.manifest import describe_files


@dataclass(frozen=True, kw_only=True)
class Part:
    """A finished part: its shards by split, without empty ones, and its files."""

    name: str
    shards: dict[str, ShardCounts]
    files: dict[str, dict[str, Any]]

    @property
    def task_index(self) -> int:
        """The index of the task that wrote the part."""
        return int(self.name.partition("_")[0])

    def to_dict(self) -> dict[str, Any]:
        """Return the part as a JSON-like value."""
        return asdict(self)

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> "Part":
        """Return the part of a value that `to_dict` returned."""
        shards = {split: ShardCounts(**counts) for split, counts in facts["shards"].items()}
        return cls(name=facts["name"], shards=shards, files=facts["files"])


class PartWriter:
    """Writes one part; only its key index is held in memory, not its tokens."""

    def __init__(
        self, directory: Path, name: str, token_type: np.dtype[Any], corpus: str, with_keys: bool
    ) -> None:
        self._directory = directory
        self._name = name
        self._writers = {
            split: ShardWriter(directory, f"{split}_{name}", token_type, corpus) for split in SPLITS
        }
        self._key_index = KeyIndex() if with_keys else None

    @property
    def num_tokens(self) -> int:
        """Tokens written so far, over both splits."""
        return sum(writer.num_tokens for writer in self._writers.values())

    def add(
        self,
        documents: Documents,
        layout: Layout,
        document_keys: UInt64Array,
        near_keys: list[list[int]],
        paragraph_keys: UInt64Array,
    ) -> None:
        """Append documents, none of which is empty, to the splits given by the layout."""
        for index, split in enumerate(SPLITS):
            chosen: npt.NDArray[np.bool_] = layout.splits == index
            if chosen.any():
                sentences = np.repeat(chosen, np.diff(documents.documents))
                self._writers[split].add(documents if chosen.all() else documents.keep(sentences))
        if self._key_index is not None:
            self._key_index.add(layout, document_keys, near_keys, paragraph_keys)

    def close(self) -> Part:
        """Finish the files and return the part."""
        counts = {split: writer.close() for split, writer in self._writers.items()}
        shards = {split: shard for split, shard in counts.items() if shard.documents}
        names = [file for shard in shards.values() for file in shard_files(shard.name)]
        for split in SPLITS:
            if split not in shards:
                for file in self._writers[split].files:
                    (self._directory / file).unlink()
        if self._key_index is not None:
            names += self._key_index.save(self._directory, self._name)
        return Part(name=self._name, shards=shards, files=describe_files(self._directory, names))

    def release(self) -> None:
        """Close the files, also after an error, without making a part of them."""
        for writer in self._writers.values():
            writer.close()
