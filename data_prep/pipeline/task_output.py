"""Parts: what a task writes is cut into pieces of bounded size, each complete in itself.

A part has one train shard, one validation shard, and a ledger if copies are looked for.
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
    """A finished part: its shards by split, those without documents left out, and its files."""

    name: str
    shards: dict[str, ShardCounts]
    files: dict[str, dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can keep it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> "Part":
        """Read back what `to_dict` returned."""
        shards = {split: ShardCounts(**counts) for split, counts in facts["shards"].items()}
        return cls(name=facts["name"], shards=shards, files=facts["files"])


class PartWriter:
    """Writes one part; memory holds its ledger, not its text."""

    def __init__(
        self, directory: Path, name: str, token_type: np.dtype[Any], corpus: str, with_ledger: bool
    ) -> None:
        self._directory = directory
        self._name = name
        self._writers = {
            split: ShardWriter(directory, f"{split}_{name}", token_type, corpus) for split in SPLITS
        }
        self._ledger = KeyIndex() if with_ledger else None

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
        """Append documents, none of which is empty, to the splits that the layout names."""
        for number, split in enumerate(SPLITS):
            chosen: npt.NDArray[np.bool_] = layout.splits == number
            if chosen.any():
                sentences = np.repeat(chosen, np.diff(documents.documents))
                self._writers[split].add(documents if chosen.all() else documents.keep(sentences))
        if self._ledger is not None:
            self._ledger.add(layout, document_keys, near_keys, paragraph_keys)

    def close(self) -> Part:
        """Finish the files and return what they hold."""
        counts = {split: writer.close() for split, writer in self._writers.items()}
        shards = {split: shard for split, shard in counts.items() if shard.documents}
        names = [file for shard in shards.values() for file in shard_files(shard.name)]
        for split in SPLITS:
            if split not in shards:
                for file in self._writers[split].files:
                    (self._directory / file).unlink()
        if self._ledger is not None:
            names += self._ledger.save(self._directory, self._name)
        return Part(name=self._name, shards=shards, files=describe_files(self._directory, names))

    def release(self) -> None:
        """Close the files, also after an error; what was written is not a part."""
        for writer in self._writers.values():
            writer.close()
