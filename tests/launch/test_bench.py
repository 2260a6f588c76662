"""Benchmarks: what a row says, what the text is, and that every side does the work it claims."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.corpus.shards import Corpus
from data_prep.errors import UserError
from launch.bench import _parser
from launch.benchmarks import loader, prep, prep_sides
from launch.benchmarks.processes import Measured, Side, run_rounds, run_side
from launch.benchmarks.report import Row, print_table, ratio_of, write_report
from launch.benchmarks.text import altered, write_repeated, write_text

ROOT = Path(__file__).parents[2]
# A side that holds 150 MB in a child of its own, and nothing in the process that starts it.
SIDE = """
import subprocess, sys, time
from pathlib import Path
from launch.benchmarks.processes import write_result
if sys.argv[1] == "fails":
    sys.exit("no such corpus")
held = "import time; block = bytearray(150_000_000); time.sleep(1)"
subprocess.run([sys.executable, "-c", held], check=True)
write_result(Path(sys.argv[2]), tokens=7, name=sys.argv[1])
"""


@pytest.fixture
def side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Side:
    """Return a side whose module lies in a folder of its own."""
    (tmp_path / "a_side.py").write_text(SIDE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return Side(name="ours/held", module="a_side", job={}, variables={})


def row(name: str, *values: float) -> Row:
    return Row(name=name, unit="tokens/s", values=values)


def measured(tokens: int, seconds: float, **result: Any) -> Measured:
    result |= {"tokens": tokens, "seconds": seconds}
    return Measured(seconds=2 * seconds, peak_bytes=10, largest_bytes=5, processes=1, result=result)


def test_a_ratio_pairs_the_figures_of_a_round() -> None:
    # The machine was slow in the second round, for both: the medians alone would say 2.5.
    ours, peer = row("ours/a", 10.0, 2.0, 50.0), row("peer/b", 5.0, 1.0, 4.0)
    assert ratio_of(ours, peer) == 2.0
    assert ours.against([peer]).ratio == {"peer/b": 2.0}


def test_the_report_has_the_fields_that_readers_of_it_rely_on(tmp_path: Path) -> None:
    path = tmp_path / "results" / "found.json"
    write_report(path, [row("ours/a", 3.0, 1.0, 2.0).against([row("peer/b", 1.0, 1.0, 1.0)])])
    report = json.loads(path.read_text(encoding="utf-8"))
    assert set(report) == {"gpu", "device", "versions", "commit", "rows"}
    assert report["versions"]["tokenizers"] and "core" in report["device"]
    assert report["rows"] == [
        {
            "name": "ours/a",
            "unit": "tokens/s",
            "median": 2.0,
            "min": 1.0,
            "max": 3.0,
            "peak_bytes": None,
            "ratio": {"peer/b": 2.0},
        }
    ]


def test_a_report_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="correct --json"):
        write_report(tmp_path / "file" / "found.json", [row("ours/a", 1.0)])


def test_columns_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([row("ours/long_name", 1234567.0), row("peer/b", 0.5)])
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.index("unit") == first.index("tokens/s") == second.index("tokens/s")
    assert "1,234,567" in first and "0.50" in second


def test_memory_counts_the_children_of_a_side(side: Side, tmp_path: Path) -> None:
    found = run_side(side, tmp_path / "scratch")
    assert found.result == {"tokens": 7, "name": "ours/held"}
    assert found.processes >= 2
    assert 150e6 < found.largest_bytes < found.peak_bytes < 300e6
    assert found.seconds > 1.0
    assert not (tmp_path / "scratch" / "work").exists()


def test_a_side_that_fails_is_named_with_its_last_line(side: Side, tmp_path: Path) -> None:
    failing = Side(name="fails", module=side.module, job={}, variables={})
    with pytest.raises(UserError, match=r"fails ended with code 1: no such corpus"):
        run_side(failing, tmp_path / "scratch")


def test_sides_take_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    order: list[str] = []

    def note(side: Side, scratch: Path) -> Measured:
        order.append(side.name)
        return measured(1, 1.0)

    monkeypatch.setattr("launch.benchmarks.processes.run_side", note)
    sides = [Side(name=name, module="", job={}, variables={}) for name in ("a", "b")]
    found = run_rounds(sides, 2, tmp_path)
    assert order == ["a", "b", "a", "b"]
    assert {name: len(runs) for name, runs in found.items()} == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    "text", ["The quiet river, and an old Mill.", "安静的河流旁边有一座老磨坊。"]
)
def test_a_copy_is_altered_in_letters_alone_and_always_alike(text: str) -> None:
    base = [text * 40, text * 7]
    assert altered(base, 0) == base
    copy = altered(base, 1)
    assert altered(base, 1) == copy != altered(base, 2)
    changed = 0
    for before, after in zip(base, copy, strict=True):
        assert len(before) == len(after)
        for old, new in zip(before, after, strict=True):
            changed += old != new
            assert old == new or (old.isalpha() and new.isalpha() and new in text)
    assert 0 < changed < len("".join(base)) / 30


def test_repeated_text_is_as_large_as_asked_and_has_no_copies(tmp_path: Path) -> None:
    text = write_repeated(tmp_path / "text", [Path("sample")], "en", 9_000_000)
    lines = [
        line
        for part in sorted(text.folder.iterdir())
        for line in part.read_text(encoding="utf-8").splitlines()
    ]
    assert len(list(text.folder.iterdir())) == 2
    assert text.documents == len(lines) == len(set(lines))
    assert text.size == sum(len(json.loads(line)["text"].encode()) for line in lines)
    assert 9_000_000 <= text.size < 9_200_000


def test_a_corpus_is_read_up_to_the_limit_in_its_order(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("\n\n".join("abcdefgh"), encoding="utf-8")
    text = write_text(tmp_path / "text", [tmp_path / "in.txt"], "en", 3)
    (part,) = text.folder.iterdir()
    assert part.read_text(encoding="utf-8") == "".join(f'{{"text": "{c}"}}\n' for c in "abc")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError):
        write_text(tmp_path / "none", [tmp_path / "empty"], "en", 3)


def test_ratios_compare_running_with_running_and_whole_with_whole() -> None:
    stages = {stage: 0.5 for stage in prep.STAGE_NAMES}
    found = {name: [measured(100, 1.0)] for name in (prep.BARE, prep.MAP, prep.MAP_FAST)}
    found |= {prep.OURS: [measured(100, 0.25)], prep.STAGES: [measured(100, 2.5, stages=stages)]}
    rows = {row.name: row for row in prep.compare(found, 5_000_000)}
    assert set(rows[prep.OURS].ratio.values()) == {4.0}
    whole = rows[f"{prep.OURS}_with_startup"].ratio
    # The process took twice as long as the work; the bare tokenizer's start is never counted.
    assert whole == {prep.BARE: 2.0, f"{prep.MAP}_with_startup": 4.0,
                     f"{prep.MAP_FAST}_with_startup": 4.0}  # fmt: skip
    assert rows[f"{prep.OURS}_text"].values == (20.0,)
    assert rows["ours/share/reading"].values == (20.0,)
    assert rows["ours/stage/reading"].values == (10.0,)


def test_loader_rows_of_ours_come_last_and_miss_no_peer() -> None:
    names = (loader.LIMIT, loader.UNIFORM, loader.COLLATOR, loader.NUMPY_PAIRS)
    rows = loader.compare({name: [measured(10, 1.0)] for name in names})
    assert [row.name for row in rows if not row.ratio] == [names[0], names[2], names[3]]
    assert rows[-1].name == loader.UNIFORM
    assert set(rows[-1].ratio) == {names[0], names[2], names[3]}


def bench(*words: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "launch" / "bench.py"), *words]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended


@pytest.mark.story
def test_preparation_is_measured_from_end_to_end(tmp_path: Path) -> None:
    path = tmp_path / "prep.json"
    ended = bench("prep", "--quick", "--json", str(path), "--workers", "2")
    rows = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    assert set(rows["ours/prepare_data"]["ratio"]) == {prep.BARE, prep.MAP, prep.MAP_FAST}
    shares = sum(row["median"] for name, row in rows.items() if name.startswith("ours/share/"))
    assert shares == pytest.approx(100)
    assert all(row["median"] > 0 for row in rows.values())
    assert "2 core(s) for each side" in ended.stdout


@pytest.fixture
def arguments() -> Callable[..., argparse.Namespace]:
    """Return a function that gives the arguments of a benchmark as bench.py parses them."""

    def parse(*words: str) -> argparse.Namespace:
        return _parser().parse_args(words)

    return parse


def test_every_side_of_preparation_counts_the_same_tokens(
    arguments: Callable[..., argparse.Namespace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments("prep", "--quick", "--workers", "1", "--limit-mb", "0.1")
    text = prep._make_text(given, tmp_path)
    job = prep._job(given, text, tmp_path)
    monkeypatch.setattr(sys, "argv", ["side"])
    counts = {}
    for name in (prep.BARE, prep.OURS, prep.STAGES, prep.MAP_FAST):
        work = tmp_path / name
        work.mkdir(parents=True)
        prep_sides.SIDES[name](job, work)
        counts[name] = json.loads((work / "result.json").read_text(encoding="utf-8"))["tokens"]
    assert counts[prep.BARE] > text.size / 10
    assert set(counts.values()) == {counts[prep.BARE]}


def test_memory_is_held_against_that_of_the_smallest_input(
    arguments: Callable[..., argparse.Namespace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def pretend(side: Side, scratch: Path) -> Measured:
        sizes.append(sum(part.stat().st_size for part in Path(side.job["text"]).iterdir()))
        return measured(1, 1.0)

    monkeypatch.setattr(prep, "run_side", pretend)
    rows = prep.run(arguments("prep", "--quick", "--memory-mb", "0.1,0.4"), tmp_path)
    assert 0.1e6 < sizes[0] < 0.3e6 and 0.4e6 < sizes[1] < 0.6e6
    assert [row.ratio for row in rows] == [
        {},
        {},
        {"ours/memory/0.1_MB/all": 1.0},
        {"ours/memory/0.1_MB/largest_process": 1.0},
    ]


def test_the_loader_is_measured_on_the_sample_when_no_corpus_is_named(
    arguments: Callable[..., argparse.Namespace],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = {}

    def pretend(sides: list[Side], rounds: int, scratch: Path) -> dict[str, list[Measured]]:
        jobs.update({side.name: side.job for side in sides})
        return {side.name: [measured(10, 1.0)] * rounds for side in sides}

    monkeypatch.setattr(loader, "run_rounds", pretend)
    rows = loader.run(arguments("loader", "--quick"), tmp_path)
    assert Corpus.open(Path(jobs[loader.UNIFORM]["corpus"])).num_documents > 100
    assert {row.name for row in rows} == set(jobs)
    left_out = f"{loader.WHOLE_WORD} is left out" in capsys.readouterr().out
    assert left_out != (loader.WHOLE_WORD in jobs)


def test_wrong_requests_are_one_sentence(
    arguments: Callable[..., argparse.Namespace], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="belong together"):
        loader.run(arguments("loader", "--corpus", "x"), tmp_path)
    with pytest.raises(UserError, match="must be at least 1"):
        prep.run(arguments("prep", "--repeat", "0"), tmp_path)
    for wrong in ("10,0", "ten"):
        with pytest.raises(SystemExit):
            arguments("prep", "--memory-mb", wrong)
