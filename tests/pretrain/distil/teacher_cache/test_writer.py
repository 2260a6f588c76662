"""Writing teacher caches: passes that resume, and what is refused before or while computing."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data_prep.errors import UserError
from data_prep.manifest import MANIFEST
from pretrain.data.batch import Batch
from pretrain.data.batch_source import BatchSource
from pretrain.distil.teacher_cache import writer
from pretrain.distil.teacher_cache.format import record_type
from pretrain.distil.teacher_cache.key import TeacherCacheOptions
from pretrain.distil.teacher_cache.reader import TeacherCacheReader
from pretrain.distil.teacher_cache.writer import TeacherCacheWriter
from tests.pretrain.conftest import OpenSource
from tests.pretrain.distil.teacher_cache.conftest import (
    ROWS,
    ComputeLogits,
    WriteCache,
)

FULL = SimpleNamespace(free=10**5)


Key = Callable[[BatchSource], dict[str, Any]]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_interrupted_pass_resumes_to_same_bytes(
    make_writer: Callable[..., TeacherCacheWriter],
    write_teacher_cache: WriteCache,
    compute_logits: ComputeLogits,
    tmp_path: Path,
) -> None:
    """A pass that was interrupted and resumed at another world size leaves the same files."""
    whole = write_teacher_cache("whole", kind="sampled", count=6)
    calls = 0

    def interrupted(batch: Batch) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return compute_logits(batch)

    writer = make_writer("stopped", kind="sampled", count=6)
    writer.begin()
    with pytest.raises(KeyboardInterrupt):
        writer.write(interrupted, 4)  # two batches a shard: in the second shard
    assert (tmp_path / "stopped" / "00000.json").exists()
    # What a kill in the middle of a file leaves, and files whose marker was never written.
    (tmp_path / "stopped" / "00001.records.bin.tmp").write_bytes(b"half")
    (tmp_path / "stopped" / "00002.records.bin").write_bytes(b"half")
    with pytest.raises(UserError, match=r"Shard 1 of .* is missing: run the same command again"):
        writer.finish()
    before = (tmp_path / "stopped" / "00000.records.bin").stat().st_mtime_ns
    again = make_writer("stopped", kind="sampled", count=6)
    again.begin()
    for rank in (1, 0):
        again.write(compute_logits, 4, rank, 2)
    again.finish()
    assert contents(tmp_path / "stopped") == contents(whole)
    assert (tmp_path / "stopped" / "00000.records.bin").stat().st_mtime_ns == before


def test_finished_pass_computes_nothing(
    write_teacher_cache: WriteCache, make_writer: Callable[..., TeacherCacheWriter]
) -> None:
    """Writing a complete cache again has no teacher forward pass."""
    folder = write_teacher_cache()
    before = contents(folder)

    def fail(batch: Batch) -> torch.Tensor:
        raise AssertionError("a forward pass of a complete cache")

    writer = make_writer()
    writer.begin()
    writer.write(fail, 4)
    writer.finish()
    assert contents(folder) == before


def test_size_logged_before_writing(
    make_writer: Callable[..., TeacherCacheWriter],
    write_teacher_cache: WriteCache,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The estimated size is logged first and is that of the files."""
    options = {"kind": "sampled", "count": 12, "number": "float16"}
    writer = make_writer(**options)
    # A position, 12 ids of two bytes, 12 values of two bytes, an fp32 number.
    size = writer.estimate_size()
    assert size.record_bytes == 2 + 12 * 2 + 12 * 2 + 4
    writer.begin()
    logged = re.search(r"54 bytes a masked token x about (\d+)", capsys.readouterr().err)
    assert logged is not None
    folder = write_teacher_cache(**options)
    stored = sum(path.stat().st_size for path in folder.glob("*.records.bin"))
    assert stored == 54 * int(logged[1])  # with so few rows, all of them are counted
    assert size.total_bytes == stored


def test_full_disk_refused_before_compute(
    make_writer: Callable[..., TeacherCacheWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk with too little space is refused before any forward pass."""
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda path: FULL)
    with pytest.raises(UserError, match=r"has 0.1 MB left, but .* needs about 0.2 MB"):
        make_writer().begin()


def test_mismatched_pass_not_resumed(
    write_teacher_cache: WriteCache, make_writer: Callable[..., TeacherCacheWriter], tmp_path: Path
) -> None:
    """A pass begun with another key, or a folder with other files, is not continued."""
    write_teacher_cache()
    with pytest.raises(UserError, match=r"begun for something else .signal.count is 201 there"):
        make_writer(count=5).begin()
    with pytest.raises(UserError, match=r"begun for something else .mask.rate is 0.15 there"):
        make_writer(mask={"rate": 0.3}).begin()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(UserError, match="holds something that is no teacher cache"):
        make_writer("mine").begin()


def test_shard_without_marker_rewritten(
    make_writer: Callable[..., TeacherCacheWriter],
    write_teacher_cache: WriteCache,
    open_source: OpenSource,
    key_of_source: Key,
    compute_logits: ComputeLogits,
) -> None:
    """A damaged shard is written again once its marker is removed."""
    folder = write_teacher_cache()
    before = contents(folder)
    (folder / "00001.records.bin").write_bytes(bytes(len(before["00001.records.bin"])))
    (folder / "00001.json").unlink()
    writer = make_writer()
    writer.begin()
    writer.write(compute_logits, 4)
    writer.finish()
    assert contents(folder) == before
    TeacherCacheReader.open(folder, key_of_source(open_source()), ROWS)


def test_nan_logits_refused(
    make_writer: Callable[..., TeacherCacheWriter], compute_logits: ComputeLogits
) -> None:
    """Logits that are not finite are refused."""
    writer = make_writer()
    writer.begin()
    with pytest.raises(UserError, match="logits of rows 0 to 3 are not finite"):
        writer.write(lambda batch: compute_logits(batch) * torch.nan, 4)


def test_masking_rate_schedule_refused(open_source: OpenSource, key_of_source: Key) -> None:
    """A masking rate that changes with the steps cannot be cached."""
    with pytest.raises(UserError, match=r"mask.rate_end 0.3 changes the masks from step to step"):
        key_of_source(open_source(rate_end=0.3))


def test_count_beyond_vocabulary_refused(
    make_writer: Callable[..., TeacherCacheWriter],
) -> None:
    """More entries than the vocabulary or the limit are refused."""
    with pytest.raises(UserError, match=r"teacher_cache.count 202 is more than the 201 tokens"):
        make_writer(count=202)
    with pytest.raises(UserError, match=r"teacher_cache.count 5000 is above 4096"):
        make_writer(kind="sampled", count=5000)


def test_large_vocabulary_has_four_byte_ids() -> None:
    """Ids take two bytes up to 65,536 tokens and four beyond."""
    options = TeacherCacheOptions(kind="sampled", count=10, number="float16")
    assert record_type(options, 1 << 16).itemsize == 2 + 10 * (2 + 2) + 4
    assert record_type(options, (1 << 16) + 1).itemsize == 2 + 10 * (4 + 2) + 4


def test_manifest_names_every_file(write_teacher_cache: WriteCache) -> None:
    """The manifest is JSON and names every file."""
    folder = write_teacher_cache()
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    binaries = {path.name for path in folder.glob("*.bin")}
    assert set(manifest["files"]) == binaries and len(binaries) == 6
    assert manifest["format"] == "stillhouse-signal-2" and manifest["teacher"] == "a" * 64
    assert not list(folder.glob("*.tmp"))
