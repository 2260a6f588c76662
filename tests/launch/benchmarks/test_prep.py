"""The preparation benchmark: its text, its sides, its rows."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.errors import UserError
from launch.bench import _parser
from launch.benchmarks import prep
from launch.benchmarks.driver import Run
from launch.benchmarks.text import altered, make_job, write_text

BENCH = Path(__file__).parents[3] / "launch" / "bench.py"


def parse(*words: str) -> argparse.Namespace:
    return _parser("prep").parse_args(["prep", "--quick", *words])


def measured(tokens: int, seconds: float, **result: Any) -> Run:
    result |= {"tokens": tokens, "seconds": seconds, "largest_bytes": 5, "processes": 1}
    return Run(seconds=2 * seconds, peak_bytes=10, result=result)


@pytest.mark.parametrize(
    "text", ["The quiet river, and an old Mill.", "安静的河流旁边有一座老磨坊。"]
)
def test_altered_copy_changes_letters_only(text: str) -> None:
    """A copy differs in letters alone, and always in the same ones."""
    base = [text * 40, text * 7]
    assert altered(base, 0) == base
    copy = altered(base, 1)
    assert altered(base, 1) == copy != altered(base, 2)
    assert list(map(len, copy)) == list(map(len, base))
    pairs = list(zip("".join(base), "".join(copy), strict=True))
    changed = [(old, new) for old, new in pairs if old != new]
    assert 0 < len(changed) < len(pairs) / 30
    assert all(old.isalpha() and new.isalpha() and new in text for old, new in changed)


def test_repeated_text_has_no_duplicates(tmp_path: Path) -> None:
    """Repeated text has the requested size and no duplicate documents."""
    text = write_text(tmp_path / "text", None, "en", 9_000_000, repeat=False)
    parts = sorted(text.folder.iterdir())
    lines = [line for part in parts for line in part.read_text(encoding="utf-8").splitlines()]
    assert len(parts) == 2
    assert text.documents == len(lines) == len(set(lines))
    assert text.size == sum(len(json.loads(line)["text"].encode()) for line in lines)
    assert 9_000_000 <= text.size < 9_200_000


def test_corpus_text_stops_at_limit(tmp_path: Path) -> None:
    """A corpus is read in its order, up to the limit, and repeated only when that is asked for."""
    (tmp_path / "in.txt").write_text("\n\n".join("abcdefgh"), encoding="utf-8")
    for size, repeat, expected in ((3, False, "abc"), (9, False, "abcdefgh"), (9, True, 9)):
        folder = tmp_path / f"text_{size}_{repeat}"
        text = write_text(folder, [tmp_path / "in.txt"], "en", size, repeat)
        (part,) = text.folder.iterdir()
        found = [json.loads(line)["text"] for line in part.read_text("utf-8").splitlines()]
        assert "".join(found) == expected or len(found) == expected
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError):
        write_text(tmp_path / "none", [tmp_path / "empty"], "en", 3, repeat=False)


def test_ratios_match_startup() -> None:
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


def test_sides_count_same_tokens(tmp_path: Path) -> None:
    """All sides of preparation count the same tokens, and the stages are timed."""
    text, job = make_job(parse("--workers", "1"), 0.1, tmp_path)
    counts, stages = {}, {}
    for name in (prep.BARE, prep.NANOTOKEN, prep.OURS, prep.STAGES, prep.MAP_FAST):
        work = tmp_path / name
        work.mkdir(parents=True)
        result = prep.SIDES[name](job, work)
        counts[name] = result["tokens"]
        stages |= result.get("stages", {})
    assert tuple(stages) == prep.STAGE_NAMES and all(s > 0 for s in stages.values())
    assert counts[prep.BARE] > text.size / 10
    assert set(counts.values()) == {counts[prep.BARE]}


def test_memory_compares_with_first_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peak memory of each input is compared with that of the first."""
    sizes = []

    def fake_side(module: str, name: str, job: Any, *_: Any) -> Callable[[], Run]:
        sizes.append(sum(part.stat().st_size for part in Path(job["text"]).iterdir()))
        return lambda: measured(1, 1.0)

    monkeypatch.setattr(prep, "process_side", fake_side)
    rows = prep.run(parse("--memory-mb", "0.1,0.4"), tmp_path)
    assert 0.1e6 < sizes[0] < 0.3e6 and 0.4e6 < sizes[1] < 0.6e6
    names = [f"ours/memory/0.1_MB/{what}" for what in ("all", "largest_process")]
    assert [row.ratio for row in rows] == [{}, {}, *({name: 1.0} for name in names)]


@pytest.mark.story
def test_prep_benchmark_end_to_end(tmp_path: Path) -> None:
    """`bench.py prep` leaves a report with all rows, and says what they are."""
    path = tmp_path / "prep.json"
    words = ["prep", "--quick", "--json", str(path), "--workers", "2"]
    ended = subprocess.run([sys.executable, str(BENCH), *words], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    others = {prep.BARE, prep.NANOTOKEN, prep.MAP, prep.MAP_FAST}
    assert set(rows["ours/prepare_data"]["ratio"]) == others
    shares = sum(row["median"] for name, row in rows.items() if name.startswith("ours/share/"))
    assert shares == pytest.approx(100)
    assert all(row["median"] > 0 for row in rows.values())
    assert "2 core(s) for each side" in ended.stdout
    assert f"{prep.BARE}: encode_batch_fast" in ended.stdout
