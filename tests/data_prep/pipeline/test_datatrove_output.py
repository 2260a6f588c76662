"""What datatrove and NeMo Curator leave after filtering is read as it lies on the disk."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.config.schema import CorpusRecipe
from data_prep.pipeline.build import build_corpus

RecipeFor = Callable[..., CorpusRecipe]
RANKS, DOCUMENTS = 3, 12


def records(rank: int, prose: Callable[[str, int], str]) -> list[dict[str, Any]]:
    """Return documents as datatrove's writers have them: text, id and metadata."""
    texts = prose(f"rank{rank}", DOCUMENTS).strip().split("\n\n")
    return [
        {
            "text": text,
            "id": f"<urn:uuid:{rank}-{number}>",
            "metadata": {"url": f"https://example.org/{number}", "token_count": len(text)},
        }
        for number, text in enumerate(texts)
    ]


def write_jsonl(folder: Path, prose: Callable[[str, int], str]) -> None:
    """Write one .jsonl.gz a rank, as `JsonlWriter` does."""
    for rank in range(RANKS):
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records(rank, prose))
        (folder / f"{rank:05d}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))


def write_parquet(folder: Path, prose: Callable[[str, int], str]) -> None:
    """Write one Parquet file a rank, as `ParquetWriter` does."""
    for rank in range(RANKS):
        table = pa.Table.from_pylist(records(rank, prose))
        pq.write_table(table, folder / f"{rank:05d}.parquet", compression="zstd")


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_filtered_output_is_read(
    write: Callable[..., None], tmp_path: Path, recipe_for: RecipeFor, prose: Any
) -> None:
    """A folder with a file for each rank becomes a corpus of all of its documents."""
    folder = tmp_path / "filtered"
    folder.mkdir()
    write(folder, prose)
    manifest = build_corpus(recipe_for(folder, corpus__validation_share=0.2))
    kept = sum(split["documents"] for split in manifest["splits"].values())
    assert kept == RANKS * DOCUMENTS and manifest["dropped"] == {}
