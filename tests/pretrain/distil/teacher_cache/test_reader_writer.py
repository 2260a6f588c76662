"""Teacher caches: what is read is what was written, or it is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from data_prep.errors import UserError
from data_prep.manifest import MANIFEST
from pretrain.data.batch import IGNORE_INDEX, Batch
from pretrain.data.batch_source import BatchSource
from pretrain.distil.teacher_cache import writer
from pretrain.distil.teacher_cache.format import record_type
from pretrain.distil.teacher_cache.key import TeacherCacheOptions
from pretrain.distil.teacher_cache.reader import TeacherCacheReader
from pretrain.distil.teacher_cache.targets import cached_soft_target_sum
from pretrain.distil.teacher_cache.writer import TeacherCacheWriter
from tests.pretrain.conftest import OpenSource
from tests.pretrain.distil.soft_target_reference import soft_target_sum
from tests.pretrain.distil.teacher_cache.conftest import (
    ROWS,
    TEMPERATURE,
    ComputeLogits,
    WriteCache,
)

FULL = SimpleNamespace(free=10**5)
Key = Callable[[BatchSource], dict[str, Any]]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def loss_from(
    reader: TeacherCacheReader, batch: Batch, rows: np.ndarray, logits_MV: torch.Tensor
) -> float:
    targets = reader.targets(batch, rows)
    kind = reader.options.kind
    return cached_soft_target_sum(logits_MV, targets, kind, reader.temperature).item()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_full_cache_gives_online_loss(
    write_teacher_cache: WriteCache,
    open_source: OpenSource,
    key_of_source: Key,
    compute_logits: ComputeLogits,
    bidirectional: bool,
) -> None:
    """A cache of the whole vocabulary gives the loss of the teacher's logits."""
    mask = {"bidirectional": bidirectional}
    folder = write_teacher_cache(mask=mask)
    source = open_source(**mask)
    reader = TeacherCacheReader.open(folder, key_of_source(source), ROWS)
    # Batches of other sizes than those of the writer, over the edge of a shard, one with blanks.
    for first, end, size in ((0, 3, 3), (5, 18, 13), (19, 22, 5)):
        rows = np.arange(first, end)
        batch = source.rows(rows, size)
        teacher_MV = compute_logits(batch)
        student_MV = teacher_MV.flip(1) * 0.5
        is_masked = batch.mlm_labels != IGNORE_INDEX
        online = soft_target_sum(student_MV[is_masked], teacher_MV[is_masked], TEMPERATURE)
        # All tokens in fp32: what is left is the rounding of sums over 201 tokens.
        assert loss_from(reader, batch, rows, student_MV) == pytest.approx(online.item(), rel=1e-5)


def test_sampled_cache_within_sampling_error(
    write_teacher_cache: WriteCache,
    open_source: OpenSource,
    key_of_source: Key,
    compute_logits: ComputeLogits,
) -> None:
    """A sampled cache gives the loss of the teacher's logits within its sampling error."""
    folder = write_teacher_cache(kind="sampled", count=64, number="float16")
    source = open_source()
    reader = TeacherCacheReader.open(folder, key_of_source(source), ROWS)
    rows = np.arange(ROWS)
    batch = source.rows(rows, ROWS)
    teacher_MV = compute_logits(batch)
    student_MV = teacher_MV.flip(1) * 0.5
    is_masked = batch.mlm_labels != IGNORE_INDEX
    online = soft_target_sum(student_MV[is_masked], teacher_MV[is_masked], TEMPERATURE).item()
    # A draw costs T² (-log q) on average, with this variance over the vocabulary:
    p = (teacher_MV / TEMPERATURE).softmax(-1)
    cost = -(TEMPERATURE**2) * (student_MV / TEMPERATURE).log_softmax(-1)
    variance = (p * cost**2).sum(-1) - (p * cost).sum(-1) ** 2
    error = (variance[is_masked].sum() / 64).sqrt().item()
    assert abs(loss_from(reader, batch, rows, student_MV) - online) < 4 * error
    assert error < 0.05 * online  # or the test would be void


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


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"teacher": "b" * 64}, "teacher is 'aaaa"),
        ({"corpus": "another"}, "corpus is '.*' there and 'another' here"),
        ({"seed": 2}, "seed is 1 there and 2 here"),
        ({"temperature": 1.0}, "temperature is 2.0 there and 1.0 here"),
        ({"row_tokens": 128}, "row_tokens is 64 there and 128 here"),
        ({"mask": {"rate": 0.2}}, "mask.rate is 0.15 there and 0.2 here"),
        ({"samples": {"short_share": 0.5}}, "samples.short_share is 0.1 there and 0.5 here"),
        ({"vocab_size": 7}, "vocab_size is 201 there and 7 here"),
    ],
)
def test_mismatched_cache_refused_by_name(
    write_teacher_cache: WriteCache,
    open_source: OpenSource,
    key_of_source: Key,
    change: dict[str, Any],
    difference: str,
) -> None:
    """A cache with another key is refused, and the message names the difference."""
    folder = write_teacher_cache()
    key = key_of_source(open_source())
    for name, value in change.items():
        key[name] = key[name] | value if isinstance(value, dict) else value
    with pytest.raises(UserError, match=f"was made for something else .{difference}"):
        TeacherCacheReader.open(folder, key, ROWS)


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


@pytest.mark.parametrize("name", ["00001.records.bin", "00001.offsets.bin"])
def test_flipped_bit_refused(
    write_teacher_cache: WriteCache, open_source: OpenSource, key_of_source: Key, name: str
) -> None:
    """A flipped bit in a shard is refused."""
    folder = write_teacher_cache()
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(UserError, match=f"is damaged .the contents of {name} have changed"):
        TeacherCacheReader.open(folder, key_of_source(open_source()), ROWS)


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


def test_incomplete_or_short_cache_refused(
    write_teacher_cache: WriteCache, open_source: OpenSource, key_of_source: Key
) -> None:
    """A cache that is incomplete or has too few rows is refused."""
    folder, key = write_teacher_cache(), key_of_source(open_source())
    with pytest.raises(UserError, match="holds 22 rows, but the run reads 23"):
        TeacherCacheReader.open(folder, key, ROWS + 1)
    (folder / "00002.records.bin").unlink()
    with pytest.raises(UserError, match=r"is damaged .00002.records.bin is missing"):
        TeacherCacheReader.open(folder, key, ROWS, contents=False)
    (folder / MANIFEST).unlink()
    with pytest.raises(UserError, match=r"has no manifest.json: write it, or resume"):
        TeacherCacheReader.open(folder, key, ROWS)


def test_other_masks_detected(
    write_teacher_cache: WriteCache, open_source: OpenSource, key_of_source: Key
) -> None:
    """The key has the masking options; a change of its code shows only in the positions."""
    folder, source = write_teacher_cache(), open_source()
    reader = TeacherCacheReader.open(folder, key_of_source(source), ROWS)
    with pytest.raises(UserError, match="Rows 3 to 5 have other masks"):
        reader.targets(source.rows(np.arange(6, 9), 3), np.arange(3, 6))


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
