"""Merging: the parts of all tasks become a corpus, without the duplicates among them.

Every file is compared with the hash that its task recorded. A part without duplicates is
hard-linked unchanged; any other is rewritten without them. The manifest is written last, then the
folder is renamed.
"""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.corpus.shards import SPLITS, Shard, ShardCounts, ShardWriter, shard_files
from data_prep.dedup.exact import DUPLICATE, open_flags
from data_prep.dedup.key_index import read_layout
from data_prep.errors import UserError
from data_prep.manifest import describe_files, find_damage
from data_prep.pipeline.build_state import marker_path
from data_prep.pipeline.task_output import Part


@dataclass(frozen=True, kw_only=True)
class MergedPart:
    """A part after deduplication: its shards by split, their files, and counts of drops."""

    shards: dict[str, ShardCounts]
    files: dict[str, dict[str, Any]]
    dropped: Counter[str]


def merge_part(
    directory: Path, part: Part, corpus: Path, token_type: np.dtype[Any], deduplicate: bool
) -> MergedPart:
    """Link or rewrite the shards of one part into the folder of the corpus.

    Args:
        directory: the folder of the part.
        part: the part.
        corpus: the folder to fill.
        token_type: of an id.
        deduplicate: whether to drop what the flags beside the part's key index mark.

    Raises:
        UserError: when a file has changed since its task wrote it.
    """
    if damage := find_damage(directory, {"files": part.files}, hashes=True):
        # Without its marker the task runs again.
        marker_path(directory, part.task_index).unlink(missing_ok=True)
        raise UserError(
            f"The part {part.name} in {directory} is not what was written: {damage}; run the same "
            "command again to make it again."
        )
    chosen, dropped = _chosen(directory, part) if deduplicate else (None, Counter[str]())
    if chosen is None:
        return MergedPart(shards=part.shards, files=_link(directory, part, corpus), dropped=dropped)
    shards = {
        split: _rewrite(directory, counts, chosen[split], corpus, token_type)
        for split, counts in part.shards.items()
        if chosen[split].any()
    }
    dropped["duplicates"] += _emptied(part, shards, dropped)
    names = [file for shard in shards.values() for file in shard_files(shard.name)]
    return MergedPart(shards=shards, files=describe_files(corpus, names), dropped=dropped)


def totals(split: str, parts: Sequence[MergedPart]) -> dict[str, Any]:
    """Return the manifest entry of a split: its counts and its shards."""
    shards = [vars(part.shards[split]) for part in parts if split in part.shards]
    counted = ("documents", "sentences", "tokens")
    return {**{what: sum(shard[what] for shard in shards) for what in counted}, "shards": shards}


def _chosen(
    directory: Path, part: Part
) -> tuple[dict[str, npt.NDArray[np.bool_]] | None, Counter[str]]:
    """Return a mask of the sentences kept in each split, or None for all; and dropped counts."""
    documents = open_flags(directory, part.name, "documents", "r")
    paragraphs = open_flags(directory, part.name, "paragraphs", "r")
    if not paragraphs.any():
        return None, Counter()
    layout = read_layout(directory, part.name)
    splits = np.repeat(np.repeat(layout.splits, layout.paragraphs), layout.sentences)
    kept = np.repeat(paragraphs == 0, layout.sentences)
    alone = (paragraphs != 0) & (np.repeat(documents, layout.paragraphs) == 0)
    duplicates = int((documents & DUPLICATE != 0).sum())
    dropped = {
        "duplicates": duplicates,
        "near_duplicates": int((documents != 0).sum()) - duplicates,
        "duplicate_paragraphs": int(alone.sum()),
    }
    return {split: kept[splits == i] for i, split in enumerate(SPLITS)}, Counter(dropped)


def _emptied(part: Part, shards: dict[str, ShardCounts], dropped: Counter[str]) -> int:
    """Return how many documents have lost all of their paragraphs as duplicate paragraphs."""
    before = sum(shard.documents for shard in part.shards.values())
    after = sum(shard.documents for shard in shards.values())
    return before - after - dropped["duplicates"] - dropped["near_duplicates"]


def _rewrite(
    directory: Path,
    counts: ShardCounts,
    chosen: npt.NDArray[np.bool_],
    corpus: Path,
    token_type: np.dtype[Any],
) -> ShardCounts:
    documents = Shard(directory, counts, token_type, token_base=0).read()
    with ShardWriter(corpus, counts.name, token_type, counts.corpus) as writer:
        writer.add(documents.keep(chosen))
        return writer.close()


def _link(directory: Path, part: Part, corpus: Path) -> dict[str, dict[str, Any]]:
    names = [file for shard in part.shards.values() for file in shard_files(shard.name)]
    for name in names:
        try:
            os.link(directory / name, corpus / name)
        except OSError:  # a file system without hard links
            shutil.copyfile(directory / name, corpus / name)
    return {name: part.files[name] for name in names}
