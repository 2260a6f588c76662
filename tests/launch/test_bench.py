"""The benchmark driver, its report, and the subjects whose sides are processes."""

import argparse
import dataclasses
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
from launch.benchmarks import loader, loader_sides, prep, prep_sides
from launch.benchmarks.driver import ProcessSide, Run, measure_in_turns, row_of
from launch.benchmarks.report import Row, compare, print_table, ratio_of, write_report
from launch.benchmarks.text import SAMPLE, altered, write_repeated, write_text

ROOT = Path(__file__).parents[2]
# A side that holds 150 MB in a child process, and nothing in the process that starts it.
SIDE = """
import subprocess, sys
def held(job, work):
    code = "import time; block = bytearray(150_000_000); time.sleep(1)"
    subprocess.run([sys.executable, "-c", code], check=True)
    return {"tokens": job["tokens"]}
SIDES = {"ours/held": held, "fails": lambda job, work: sys.exit("no such corpus")}
"""


@pytest.fixture
def side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProcessSide:
    """Return a side whose module lies in a folder of its own."""
    (tmp_path / "a_side.py").write_text(SIDE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return ProcessSide(
        name="ours/held",
        module="a_side",
        job={"tokens": 7},
        variables={},
        scratch=tmp_path / "scratch",
    )


def row(name: str, *values: float) -> Row:
    return Row(name=name, unit="tokens/s", values=values)


def measured(tokens: int, seconds: float, **result: Any) -> Run:
    result |= {"tokens": tokens, "seconds": seconds, "largest_bytes": 5, "processes": 1}
    return Run(seconds=2 * seconds, peak_bytes=10, result=result)


def test_ratio_pairs_rounds() -> None:
    """A ratio is the median over rounds of the ratios of the figures of a round."""
    # The machine was slow in the second round, for both: the medians alone would say 2.5.
    ours, peer = row("ours/a", 10.0, 2.0, 50.0), row("peer/b", 5.0, 1.0, 4.0)
    assert ratio_of(ours, peer) == 2.0
    assert ours.against([peer]).ratio == {"peer/b": 2.0}


def test_report_fields_are_stable(tmp_path: Path) -> None:
    """The report has the documented fields."""
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


def test_unwritable_report_is_refused(tmp_path: Path) -> None:
    """A report that cannot be written is an error of one sentence."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="correct --json"):
        write_report(tmp_path / "file" / "found.json", [row("ours/a", 1.0)])


def test_table_columns_align(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns of the printed table are aligned."""
    rows = [row("ours/long_name", 1234567.0), row("peer/b", 0.5)]
    print_table([row.to_json() for row in rows])
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.index("unit") == first.index("tokens/s") == second.index("tokens/s")
    assert "1,234,567" in first and "0.50" in second


def test_memory_includes_child_processes(side: ProcessSide) -> None:
    """The memory of a side includes its child processes."""
    found = side.run()
    assert found.result["tokens"] == 7
    assert found.result["processes"] >= 2
    assert 150e6 < found.result["largest_bytes"] < (found.peak_bytes or 0) < 300e6
    assert found.seconds > 1.0
    assert not (side.scratch / "work").exists()


def test_failed_side_shows_last_line(side: ProcessSide) -> None:
    """A side that fails is named with the last line of its output."""
    with pytest.raises(UserError, match=r"fails ended with code 1: no such corpus"):
        dataclasses.replace(side, name="fails").run()


class FakeSide:
    """A side that records when it ran."""

    def __init__(self, name: str, order: list[str]) -> None:
        self.name, self._order = name, order

    def run(self) -> Run:
        self._order.append(self.name)
        return Run(seconds=len(self._order), peak_bytes=10 * len(self._order))


def test_sides_run_in_turns() -> None:
    """Sides run in turns, round by round; a row has a value of each run and the peak of all."""
    order: list[str] = []
    found = measure_in_turns([FakeSide(name, order) for name in ("a", "b")], 2)
    assert order == ["a", "b", "a", "b"]
    row = row_of("ours/a", "ms", found["a"], lambda run: 1000 * run.seconds)
    assert row.values == (1000, 3000) and row.peak_bytes == 30


def test_compare_puts_ours_last() -> None:
    """Our rows come last, with ratios to all others or to the named ones."""
    ours, peer, limit = row("ours/a", 4.0), row("peer/b", 2.0), row("limit/c", 8.0)
    rows = compare([ours, peer, limit])
    assert [row.name for row in rows] == ["peer/b", "limit/c", "ours/a"]
    assert rows[-1].ratio == {"peer/b": 2.0, "limit/c": 0.5}
    assert compare([ours, peer, limit], {"ours/a": ["peer/b"]})[-1].ratio == {"peer/b": 2.0}


@pytest.mark.parametrize(
    "text", ["The quiet river, and an old Mill.", "安静的河流旁边有一座老磨坊。"]
)
def test_altered_copy_changes_letters_only(text: str) -> None:
    """A copy differs in letters alone, and always in the same ones."""
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


def test_repeated_text_has_no_duplicates(tmp_path: Path) -> None:
    """Repeated text has the requested size and no duplicate documents."""
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


def test_corpus_text_stops_at_limit(tmp_path: Path) -> None:
    """A corpus is read in its order, up to the limit."""
    (tmp_path / "in.txt").write_text("\n\n".join("abcdefgh"), encoding="utf-8")
    text = write_text(tmp_path / "text", [tmp_path / "in.txt"], "en", 3)
    (part,) = text.folder.iterdir()
    assert part.read_text(encoding="utf-8") == "".join(f'{{"text": "{c}"}}\n' for c in "abc")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError):
        write_text(tmp_path / "none", [tmp_path / "empty"], "en", 3)


def test_prep_ratios_match_startup() -> None:
    """Ratios compare runs without start-up, or with it, among themselves."""
    stages = {stage: 0.5 for stage in prep.STAGE_NAMES}
    found = {name: [measured(100, 1.0)] for name in (prep.BARE, prep.MAP, prep.MAP_FAST)}
    found |= {prep.OURS: [measured(100, 0.25)], prep.STAGES: [measured(100, 2.5, stages=stages)]}
    rows = {row.name: row for row in prep.rows_of(found, 5_000_000)}
    assert set(rows[prep.OURS].ratio.values()) == {4.0}
    whole = rows[f"{prep.OURS}_with_startup"].ratio
    # The process took twice as long as the work; the bare tokenizer's start is never counted.
    assert whole == {prep.BARE: 2.0, f"{prep.MAP}_with_startup": 4.0,
                     f"{prep.MAP_FAST}_with_startup": 4.0}  # fmt: skip
    assert rows[f"{prep.OURS}_text"].values == (20.0,)
    assert rows["ours/share/reading"].values == (20.0,)
    assert rows["ours/stage/reading"].values == (10.0,)


def test_loader_rows_have_all_peers() -> None:
    """Our loader rows come last, with ratios to their peers and the limit."""
    rows = loader.rows_of({name: [measured(10, 1.0)] for name in loader_sides.SIDES})
    ours = {row.name: set(row.ratio) for row in rows if row.ratio}
    assert [row.name for row in rows][-2:] == list(ours) == [loader.UNIFORM, loader.WHOLE_WORD]
    assert ours[loader.UNIFORM] == {loader.LIMIT, loader.COLLATOR, loader.NUMPY_PAIRS}
    assert ours[loader.WHOLE_WORD] == {loader.LIMIT, loader.WHOLE_WORD_COLLATOR}


def bench(*words: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "launch" / "bench.py"), *words]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended


@pytest.mark.story
def test_prep_benchmark_end_to_end(tmp_path: Path) -> None:
    """`bench.py prep` leaves a report with all rows."""
    path = tmp_path / "prep.json"
    ended = bench("prep", "--quick", "--json", str(path), "--workers", "2")
    rows = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    assert set(rows["ours/prepare_data"]["ratio"]) == {
        prep.BARE,
        prep.NANOTOKEN,
        prep.MAP,
        prep.MAP_FAST,
    }
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


def test_prep_sides_count_same_tokens(
    arguments: Callable[..., argparse.Namespace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All sides of preparation count the same tokens, and the stages are timed."""
    given = arguments("prep", "--quick", "--workers", "1", "--limit-mb", "0.1")
    text = write_repeated(tmp_path / "text", [SAMPLE], "en", 100_000)
    job = prep.make_job(given, text, tmp_path)
    monkeypatch.setattr(sys, "argv", ["side"])
    counts, stages = {}, {}
    for name in (prep.BARE, prep.NANOTOKEN, prep.OURS, prep.STAGES, prep.MAP_FAST):
        work = tmp_path / name
        work.mkdir(parents=True)
        result = prep_sides.SIDES[name](job, work)
        counts[name] = result["tokens"]
        stages |= result.get("stages", {})
    assert tuple(stages) == prep.STAGE_NAMES and all(s > 0 for s in stages.values())
    assert counts[prep.BARE] > text.size / 10
    assert set(counts.values()) == {counts[prep.BARE]}


def test_memory_compares_with_first_input(
    arguments: Callable[..., argparse.Namespace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Peak memory of each input is compared with that of the first."""
    sizes = []

    def fake_run(side: ProcessSide) -> Run:
        sizes.append(sum(part.stat().st_size for part in Path(side.job["text"]).iterdir()))
        return measured(1, 1.0)

    monkeypatch.setattr(ProcessSide, "run", fake_run)
    rows = prep.run(arguments("prep", "--quick", "--memory-mb", "0.1,0.4"), tmp_path)
    assert 0.1e6 < sizes[0] < 0.3e6 and 0.4e6 < sizes[1] < 0.6e6
    assert [row.ratio for row in rows] == [
        {},
        {},
        {"ours/memory/0.1_MB/all": 1.0},
        {"ours/memory/0.1_MB/largest_process": 1.0},
    ]


def test_loader_defaults_to_sample(
    arguments: Callable[..., argparse.Namespace],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a corpus, the loader is measured on the shipped sample."""
    jobs = {}

    def fake_run(side: ProcessSide) -> Run:
        jobs[side.name] = side.job
        return measured(10, 1.0)

    monkeypatch.setattr(ProcessSide, "run", fake_run)
    rows = loader.run(arguments("loader", "--quick"), tmp_path)
    assert Corpus.open(Path(jobs[loader.UNIFORM]["corpus"])).num_documents > 100
    assert {row.name for row in rows} == set(jobs) == set(loader_sides.SIDES)


def test_invalid_options_are_refused(
    arguments: Callable[..., argparse.Namespace], tmp_path: Path
) -> None:
    """Invalid options are errors of one sentence."""
    with pytest.raises(UserError, match="belong together"):
        loader.run(arguments("loader", "--corpus", "x"), tmp_path)
    with pytest.raises(UserError, match="must be at least 1"):
        prep.run(arguments("prep", "--repeat", "0"), tmp_path)
    for wrong in ("10,0", "ten"):
        with pytest.raises(UserError, match="memory-mb"):
            arguments("prep", "--memory-mb", wrong)
