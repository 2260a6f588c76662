"""A teacher's signal on disk: what is read is what was said, or it is refused."""

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
from pretrain.distil.teacher_cache import writer as writing
from pretrain.distil.teacher_cache.format import record_type
from pretrain.distil.teacher_cache.key import TeacherCacheOptions
from pretrain.distil.teacher_cache.reader import TeacherCacheReader
from pretrain.distil.teacher_cache.targets import cached_soft_target_sum
from pretrain.distil.teacher_cache.writer import TeacherCacheWriter
from tests.pretrain.conftest import OpenSource
from tests.pretrain.distil.soft_target_reference import soft_target_sum
from tests.pretrain.distil.teacher_cache.conftest import ROWS, TEMPERATURE, Teach, WriteSignal

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
def test_training_from_disk_is_training_from_the_teacher(
    write_teacher_cache: WriteSignal,
    open_source: OpenSource,
    key_of_source: Key,
    teach: Teach,
    bidirectional: bool,
) -> None:
    mask = {"bidirectional": bidirectional}
    folder = write_teacher_cache(mask=mask)
    source = open_source(**mask)
    reader = TeacherCacheReader.open(folder, key_of_source(source), ROWS)
    # Batches of other sizes than those of the writer, over the edge of a shard, one with blanks.
    for first, end, size in ((0, 3, 3), (5, 18, 13), (19, 22, 5)):
        rows = np.arange(first, end)
        batch = source.rows(rows, size)
        taught_MV = teach(batch)
        student_MV = taught_MV.flip(1) * 0.5
        asked = batch.mlm_labels != IGNORE_INDEX
        online = soft_target_sum(student_MV[asked], taught_MV[asked], TEMPERATURE)
        # All words in fp32: what is left is the rounding of sums over 201 words.
        assert loss_from(reader, batch, rows, student_MV) == pytest.approx(online.item(), rel=1e-5)


def test_drawn_words_are_as_good_as_the_teacher_within_their_noise(
    write_teacher_cache: WriteSignal, open_source: OpenSource, key_of_source: Key, teach: Teach
) -> None:
    folder = write_teacher_cache(kind="sampled", count=64, number="float16")
    source = open_source()
    reader = TeacherCacheReader.open(folder, key_of_source(source), ROWS)
    rows = np.arange(ROWS)
    batch = source.rows(rows, ROWS)
    taught_MV = teach(batch)
    student_MV = taught_MV.flip(1) * 0.5
    asked = batch.mlm_labels != IGNORE_INDEX
    online = soft_target_sum(student_MV[asked], taught_MV[asked], TEMPERATURE).item()
    # A draw costs T² (-log q) on average, with this variance over the words:
    p = (taught_MV / TEMPERATURE).softmax(-1)
    cost = -(TEMPERATURE**2) * (student_MV / TEMPERATURE).log_softmax(-1)
    variance = (p * cost**2).sum(-1) - (p * cost).sum(-1) ** 2
    error = (variance[asked].sum() / 64).sqrt().item()
    assert abs(loss_from(reader, batch, rows, student_MV) - online) < 4 * error
    assert error < 0.05 * online  # or it would show nothing


def test_ranks_and_stops_leave_the_same_bytes(
    make_writer: Callable[..., TeacherCacheWriter],
    write_teacher_cache: WriteSignal,
    teach: Teach,
    tmp_path: Path,
) -> None:
    whole = write_teacher_cache("whole", kind="sampled", count=6)
    asked = 0

    def dies(batch: Batch) -> torch.Tensor:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise KeyboardInterrupt
        return teach(batch)

    writer = make_writer("stopped", kind="sampled", count=6)
    writer.begin()
    with pytest.raises(KeyboardInterrupt):
        writer.write(dies, 4)  # two batches a shard: in the second shard
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
        again.write(teach, 4, rank, 2)
    again.finish()
    assert contents(tmp_path / "stopped") == contents(whole)
    assert (tmp_path / "stopped" / "00000.records.bin").stat().st_mtime_ns == before


def test_a_finished_pass_asks_the_teacher_nothing(
    write_teacher_cache: WriteSignal, make_writer: Callable[..., TeacherCacheWriter]
) -> None:
    folder = write_teacher_cache()
    before = contents(folder)

    def refuses(batch: Batch) -> torch.Tensor:
        raise AssertionError("asked again")

    writer = make_writer()
    writer.begin()
    writer.write(refuses, 4)
    writer.finish()
    assert contents(folder) == before


def test_the_size_is_said_before_anything_is_written(
    make_writer: Callable[..., TeacherCacheWriter],
    write_teacher_cache: WriteSignal,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = {"kind": "sampled", "count": 12, "number": "float16"}
    writer = make_writer(**options)
    # A place, 12 words of two bytes, 12 numbers of two bytes, an fp32 number.
    size = writer.estimate_size()
    assert size.record_bytes == 2 + 12 * 2 + 12 * 2 + 4
    writer.begin()
    said = re.search(r"54 bytes a masked token x about (\d+)", capsys.readouterr().err)
    assert said is not None
    folder = write_teacher_cache(**options)
    stored = sum(path.stat().st_size for path in folder.glob("*.records.bin"))
    assert stored == 54 * int(said[1])  # so few rows are counted, all of them
    assert size.total_bytes == stored


def test_a_disk_without_room_is_refused_before_the_teacher_is_asked(
    make_writer: Callable[..., TeacherCacheWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda path: FULL)
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
def test_a_signal_of_anything_else_is_refused_by_name(
    write_teacher_cache: WriteSignal,
    open_source: OpenSource,
    key_of_source: Key,
    change: dict[str, Any],
    difference: str,
) -> None:
    folder = write_teacher_cache()
    key = key_of_source(open_source())
    for name, value in change.items():
        key[name] = key[name] | value if isinstance(value, dict) else value
    with pytest.raises(UserError, match=f"was made for something else .{difference}"):
        TeacherCacheReader.open(folder, key, ROWS)


def test_a_signal_begun_for_anything_else_is_not_gone_on_with(
    write_teacher_cache: WriteSignal, make_writer: Callable[..., TeacherCacheWriter], tmp_path: Path
) -> None:
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
def test_a_flipped_bit_is_refused(
    write_teacher_cache: WriteSignal, open_source: OpenSource, key_of_source: Key, name: str
) -> None:
    folder = write_teacher_cache()
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(UserError, match=f"is damaged .the contents of {name} have changed"):
        TeacherCacheReader.open(folder, key_of_source(open_source()), ROWS)


def test_a_damaged_shard_is_written_again_when_its_marker_is_removed(
    make_writer: Callable[..., TeacherCacheWriter],
    write_teacher_cache: WriteSignal,
    open_source: OpenSource,
    key_of_source: Key,
    teach: Teach,
) -> None:
    folder = write_teacher_cache()
    before = contents(folder)
    (folder / "00001.records.bin").write_bytes(bytes(len(before["00001.records.bin"])))
    (folder / "00001.json").unlink()
    writer = make_writer()
    writer.begin()
    writer.write(teach, 4)
    writer.finish()
    assert contents(folder) == before
    TeacherCacheReader.open(folder, key_of_source(open_source()), ROWS)


def test_a_signal_that_is_not_complete_or_too_short_is_refused(
    write_teacher_cache: WriteSignal, open_source: OpenSource, key_of_source: Key
) -> None:
    folder, key = write_teacher_cache(), key_of_source(open_source())
    with pytest.raises(UserError, match="holds 22 rows, but the run reads 23"):
        TeacherCacheReader.open(folder, key, ROWS + 1)
    (folder / "00002.records.bin").unlink()
    with pytest.raises(UserError, match=r"is damaged .00002.records.bin is missing"):
        TeacherCacheReader.open(folder, key, ROWS, contents=False)
    (folder / MANIFEST).unlink()
    with pytest.raises(UserError, match=r"has no manifest.json: write it, or resume"):
        TeacherCacheReader.open(folder, key, ROWS)


def test_other_masks_than_the_stored_ones_are_noticed(
    write_teacher_cache: WriteSignal, open_source: OpenSource, key_of_source: Key
) -> None:
    """The key knows the options of masking; a change of its code shows in the places alone."""
    folder, source = write_teacher_cache(), open_source()
    reader = TeacherCacheReader.open(folder, key_of_source(source), ROWS)
    with pytest.raises(UserError, match="Rows 3 to 5 have other masks"):
        reader.targets(source.rows(np.arange(6, 9), 3), np.arange(3, 6))


def test_an_answer_that_is_not_finite_is_refused(
    make_writer: Callable[..., TeacherCacheWriter], teach: Teach
) -> None:
    writer = make_writer()
    writer.begin()
    with pytest.raises(UserError, match="logits of rows 0 to 3 are not finite"):
        writer.write(lambda batch: teach(batch) * torch.nan, 4)


def test_a_rate_that_changes_with_the_steps_is_refused(
    open_source: OpenSource, key_of_source: Key
) -> None:
    with pytest.raises(UserError, match=r"mask.rate_end 0.3 changes the masks from step to step"):
        key_of_source(open_source(rate_end=0.3))


def test_more_words_than_there_are_cannot_be_kept(
    make_writer: Callable[..., TeacherCacheWriter],
) -> None:
    with pytest.raises(UserError, match=r"teacher_cache.count 202 is more than the 201 tokens"):
        make_writer(count=202)
    with pytest.raises(UserError, match=r"teacher_cache.count 5000 is above 4096"):
        make_writer(kind="sampled", count=5000)


def test_large_vocabularies_take_four_bytes_a_word() -> None:
    options = TeacherCacheOptions(kind="sampled", count=10, number="float16")
    assert record_type(options, 1 << 16).itemsize == 2 + 10 * (2 + 2) + 4
    assert record_type(options, (1 << 16) + 1).itemsize == 2 + 10 * (4 + 2) + 4


def test_the_manifest_is_plain_and_names_every_file(write_teacher_cache: WriteSignal) -> None:
    folder = write_teacher_cache()
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    binaries = {path.name for path in folder.glob("*.bin")}
    assert set(manifest["files"]) == binaries and len(binaries) == 6
    assert manifest["format"] == "stillhouse-signal-2" and manifest["teacher"] == "a" * 64
    assert not list(folder.glob("*.tmp"))
