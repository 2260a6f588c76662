"""Every format, in every compression, is read whole, in order, and once, wherever it is cut."""

import bz2
import gzip
import json
import lzma
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.config.schema import InputOptions
from data_prep.errors import UserError
from data_prep.readers import byte_window
from data_prep.readers.dispatch import read_documents
from data_prep.readers.listing import list_sources
from data_prep.readers.sources import Slice, Source

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
}
KINDS = ("text", "jsonl", "wikiextractor", "parquet", "arrow_file", "arrow_stream")
# A paragraph, as every format can hold it: no line ends, no markup, nothing blank.
PARAGRAPHS = st.text("aé漢🙂 שb.\t", min_size=1, max_size=12).map(lambda t: f"p{t}q")
DOCUMENTS = st.lists(st.lists(PARAGRAPHS, min_size=1, max_size=3).map("\n".join), max_size=9)


def encode(documents: list[str], kind: str, line_end: str = "\n") -> bytes:
    """Write documents in a format, plainly."""
    if kind == "text":
        lines = "\n\n".join(documents)
    elif kind == "jsonl":
        lines = "".join(
            json.dumps({"n": 1, "text": d}, ensure_ascii=False) + "\n" for d in documents
        )
    elif kind == "wikiextractor":
        lines = "".join(f'<doc id="1" title="T">\nT\n\n{d}\n</doc>\n' for d in documents)
    else:
        return encode_columns(documents, kind)
    return lines.replace("\n", line_end).encode()


def encode_columns(documents: list[str], kind: str) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table({"n": range(len(documents)), "text": pa.array(documents, pa.string())})
    if kind == "parquet":
        pq.write_table(table, sink, row_group_size=2)
    else:
        new = pa.ipc.new_file if kind == "arrow_file" else pa.ipc.new_stream
        with new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return bytes(sink.getvalue())


def options_for(path: Path, kind: str, **changes: Any) -> InputOptions:
    name = kind.partition("_")[0]
    tree = {"path": path, "kind": name, "newline": "paragraph", **changes}
    return InputOptions.model_validate(tree)


def read(
    path: Path, options: InputOptions, step: int | None = None, counts: Counter[str] | None = None
) -> list[str]:
    """Return the documents of all slices of a file; without a step it is one slice."""
    size = path.stat().st_size
    source = Source(path, path.name, size)
    cuts = range(0, size, step or max(size, 1))
    pieces = [Slice(source, start, min(start + (step or size), size)) for start in cuts]
    counts = Counter() if counts is None else counts
    return [d.text for piece in pieces for d in read_documents(piece, options, counts)]


@pytest.mark.parametrize("kind", KINDS)
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_every_format_reads_once_in_order(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    """Documents of every format are read once and in order, for any cut and block size."""
    documents = data.draw(DOCUMENTS)
    line_end = data.draw(st.sampled_from(["\n", "\r\n"]))
    bom = b"\xef\xbb\xbf" if kind in KINDS[:3] and data.draw(st.booleans()) else b""
    path = tmp_path / "file"
    path.write_bytes(bom + encode(documents, kind, line_end))
    # Slices are 32 MiB long, so none ends inside the byte-order mark.
    step = data.draw(st.integers(1 + len(bom), max(path.stat().st_size, 1 + len(bom))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_window, "BLOCK_BYTES", data.draw(st.integers(1, 64)))
        assert read(path, options_for(path, kind), step) == documents


@pytest.mark.parametrize("suffix", COMPRESSIONS)
@pytest.mark.parametrize("kind", KINDS[:3])
def test_compressed_files_match_plain(kind: str, suffix: str, tmp_path: Path) -> None:
    """Compressed files give the documents of plain ones."""
    documents = [f"document {n}\nwith two paragraphs" for n in range(3000)]
    path = tmp_path / f"file{suffix}"
    path.write_bytes(COMPRESSIONS[suffix](encode(documents, kind)))
    assert read(path, options_for(path, kind)) == documents


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_truncated_compressed_file_is_refused(suffix: str, tmp_path: Path) -> None:
    """A truncated compressed file is refused by name."""
    path = tmp_path / f"file.jsonl{suffix}"
    path.write_bytes(
        COMPRESSIONS[suffix](encode([str(n) * 9 for n in range(20_000)], "jsonl"))[:-20]
    )
    with pytest.raises(UserError, match=rf"file\.jsonl\{suffix} is not a complete .* file"):
        read(path, options_for(path, "jsonl"))


@pytest.mark.parametrize("kind", KINDS[3:])
def test_missing_field_lists_fields(kind: str, tmp_path: Path) -> None:
    """A missing field is refused with a list of the existing ones."""
    path = tmp_path / "file"
    path.write_bytes(encode(["some text"], kind))
    with pytest.raises(UserError, match=r"file has no field 'body' but 'n', 'text'"):
        read(path, options_for(path, kind, text_field="body"))


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow_stream"])
def test_null_text_is_counted_by_name(kind: str, tmp_path: Path) -> None:
    """A record whose text is null is left out and counted as such, not as broken."""
    path = tmp_path / "file"
    path.write_bytes(encode(["one", None, "two"], kind))  # type: ignore[list-item]
    counts: Counter[str] = Counter()
    assert read(path, options_for(path, kind), counts=counts) == ["one", "two"]
    assert counts == {"null_text": 1}


def test_broken_lines_skip_up_to_limit(tmp_path: Path) -> None:
    """Broken lines are skipped up to `max_bad_records`."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n{"text": \n{"text": 3}\n{"text": "two"}\n')
    counts: Counter[str] = Counter()
    assert read(path, options_for(path, "jsonl", max_bad_records=2), counts=counts) == [
        "one",
        "two",
    ]
    assert counts == {"broken": 2}
    with pytest.raises(UserError, match=r"Line 3 of .* no text under .*max_bad_records=1"):
        read(path, options_for(path, "jsonl", max_bad_records=1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is not text"),
        (bytes(range(256)) * 20, "is not text"),
        (gzip.compress(b"text"), r"name ending in \.gz"),
    ],
)
def test_binary_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    """A file that is not text is refused."""
    path = tmp_path / "picture"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"picture {message}|picture .*{message}"):
        read(path, InputOptions(path=path))


def test_mixed_encodings_refused_or_replaced(tmp_path: Path) -> None:
    """Mixed encodings are refused with the position, or replaced."""
    (tmp_path / "a.txt").write_text("Ein schöner Tag.\n", "utf-8")
    (tmp_path / "b.txt").write_bytes("Zwei. Ein schöner Tag.\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"b\.txt is not UTF-8: the byte 0xf6 at byte offset 13"):
        read(tmp_path / "b.txt", InputOptions(path=tmp_path))
    replaced = read(tmp_path / "b.txt", InputOptions(path=tmp_path, errors="replace"))
    assert replaced == ["Zwei. Ein sch\ufffdner Tag."]


@pytest.mark.parametrize("kind", KINDS)
@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damaged_files_fail_in_one_sentence(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    """Damaged files give documents or one sentence."""
    content = bytearray(encode(["one\ntwo", "three", "🙂 four"] * 3, kind))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "file"
    path.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    try:
        found = read(path, options_for(path, kind, max_bad_records=9))
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(text, str) for text in found)


def test_sources_are_listed_in_order(tmp_path: Path) -> None:
    """Globs, folders and several corpora are listed in order."""
    for name in ("a/1.jsonl.zst", "a/2.txt", "b/3.jsonl.zst", "b/c/4.jsonl.zst"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    chosen = {
        "first": InputOptions(path=tmp_path / "*" / "*.jsonl.zst"),
        "second": InputOptions(paths=(tmp_path / "a" / "2.txt", tmp_path / "b" / "c")),
    }
    found = [(source.corpus, source.path.name) for source in list_sources(chosen)]
    assert found == [
        ("first", "1.jsonl.zst"),
        ("first", "3.jsonl.zst"),
        ("second", "2.txt"),
        ("second", "4.jsonl.zst"),
    ]


def test_dataset_streams_by_shard(tmp_path: Path) -> None:
    """A dataset is read as a stream, shard by shard."""
    (tmp_path / "set").mkdir()
    for part in range(3):
        documents = [f"document {part} {n}" for n in range(5)]
        (tmp_path / "set" / f"train-{part}.jsonl").write_bytes(encode(documents, "jsonl"))
    options = InputOptions(dataset=str(tmp_path / "set"))
    (source,) = list_sources({"text": options})
    size = source.size // source.shards
    found = [
        document.text
        for shard in range(source.shards)
        for document in read_documents(
            Slice(source, shard * size, (shard + 1) * size), options, Counter()
        )
    ]
    assert source.shards == 3
    assert found == [f"document {part} {n}" for part in range(3) for n in range(5)]
    with pytest.raises(UserError, match=r"The dataset .* cannot be read \("):
        list_sources({"text": InputOptions(dataset=str(tmp_path / "nowhere"))})


def test_saved_dataset_reads_arrow_files(tmp_path: Path) -> None:
    """A dataset that `save_to_disk` wrote is read by its Arrow files."""
    import datasets

    documents = [f"document {n}\nwith a second paragraph" for n in range(50)]
    folder = tmp_path / "saved"
    datasets.Dataset.from_dict({"text": documents}).save_to_disk(str(folder), num_shards=2)
    for options in (InputOptions(path=folder), InputOptions(dataset=str(folder))):
        sources = list_sources({"text": options})
        assert len(sources) == 2
        found = [text for source in sources for text in read(source.path, options)]
        assert found == documents
