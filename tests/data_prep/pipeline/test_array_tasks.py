"""Array tasks and merging: any division of the work gives the same corpus, interrupted or not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data_prep.config.schema import CorpusRecipe
from data_prep.corpus.shards import Corpus
from data_prep.errors import UserError
from data_prep.pipeline import task as task_module
from data_prep.pipeline.build import build_corpus, merge_corpus, run_array_task
from data_prep.readers import listing as listing_module

Prose = Callable[[str, int], str]
RecipeFor = Callable[..., CorpusRecipe]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def text(tmp_path: Path, prose: Prose, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that makes eight tasks, with copies of documents and paragraphs."""
    monkeypatch.setattr(listing_module, "SLICE_BYTES", 3_200)
    folder = tmp_path / "text"
    folder.mkdir()
    for name in ("a.txt", "b.txt", "c.txt"):
        (folder / name).write_text(prose(name, 30), "utf-8")
    (folder / "d.txt").write_text(prose("b.txt", 30), "utf-8")
    return folder


def partial_of(recipe: CorpusRecipe) -> Path:
    return Path(f"{recipe.corpus.path}.partial")


@pytest.mark.parametrize("count", [1, 3, 50])
def test_array_tasks_match_single_command(recipe_for: RecipeFor, text: Path, count: int) -> None:
    """Array tasks and a merge give the corpus of one command."""
    whole = build_corpus(recipe_for(text, corpus__path=text.parent / "whole"))
    recipe = recipe_for(text)
    for index in reversed(range(count)):
        run_array_task(recipe, index, count)
    assert merge_corpus(recipe) == whole
    assert whole["dropped"] == {"duplicates": 30}
    assert not partial_of(recipe).exists()


def test_merge_refuses_missing_tasks(recipe_for: RecipeFor, text: Path) -> None:
    """A merge is refused until every task is done."""
    recipe = recipe_for(text)
    run_array_task(recipe, 1, 4)
    with pytest.raises(
        UserError,
        match=r"6 of the 8 tasks .* missing \(the first is 0\): run array task 0 of 4, 2 of 4, ",
    ):
        merge_corpus(recipe)
    run_array_task(recipe, 0, 8)
    with pytest.raises(UserError, match=r"5 of the 8 .*: run all array tasks with the same --of"):
        merge_corpus(recipe)
    with pytest.raises(UserError, match="no array task 4 of 4: count from 0 to 3"):
        run_array_task(recipe, 4, 4)


def test_small_parts_hold_same_documents(
    recipe_for: RecipeFor, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of bounded size hold the same documents."""
    recipe = recipe_for(text)
    whole = build_corpus(recipe)
    tokens = [
        [sentence.tolist() for sentence in Corpus.open(recipe.corpus.path).document(index)]
        for index in range(whole["splits"]["train"]["documents"])
    ]
    monkeypatch.setattr(task_module, "MAX_PART_TOKENS", 150)
    monkeypatch.setattr(task_module, "_BATCH_CHARS", 400)
    small = recipe_for(text, corpus__path=text.parent / "small")
    manifest = build_corpus(small)
    corpus = Corpus.open(small.corpus.path)
    assert [[s.tolist() for s in corpus.document(i)] for i in range(len(tokens))] == tokens
    assert len(corpus.shards) > 2 * len(whole["splits"]["train"]["shards"])
    assert manifest["dropped"] == whole["dropped"]
    assert all(shard.counts.tokens < 600 for shard in corpus.shards)


def test_change_reruns_affected_tasks(
    recipe_for: RecipeFor, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the tasks that depend on a change run again."""
    recipe = recipe_for(text)
    run_array_task(recipe, 0, 1)
    late = (text / "b.txt").stat().st_mtime + 60
    os.utime(text / "b.txt", (late, late))
    capsys.readouterr()
    run_array_task(recipe, 0, 1)
    assert "done before: 6" in capsys.readouterr().err
    run_array_task(recipe_for(text, clean__min_chars=5), 0, 1)
    assert "done before: 0" in capsys.readouterr().err


def test_merge_refuses_damaged_part(recipe_for: RecipeFor, text: Path) -> None:
    """A damaged part is refused, and its task runs again."""
    recipe = recipe_for(text)
    run_array_task(recipe, 0, 1)
    shard = partial_of(recipe) / "train_00002_000.tokens.bin"
    content = bytearray(shard.read_bytes())
    content[7] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"part 00002_000 .* train_00002_000\.tokens\.bin have ch"):
        merge_corpus(recipe)
    with pytest.raises(UserError, match=r"1 of the 8 tasks .* missing \(the first is 2\)"):
        merge_corpus(recipe)
    whole = build_corpus(recipe_for(text, corpus__path=text.parent / "whole"))
    run_array_task(recipe, 2, 8)
    assert merge_corpus(recipe) == whole


def test_truncated_part_is_rebuilt(recipe_for: RecipeFor, text: Path) -> None:
    """The same command rebuilds a part with a truncated file."""
    recipe = recipe_for(text)
    run_array_task(recipe, 0, 1)
    (partial_of(recipe) / "ledger_00001_000.splits.npy").write_bytes(b"x" * 10)
    assert build_corpus(recipe)["dropped"] == {"duplicates": 30}


def test_broken_records_sum_over_tasks(recipe_for: RecipeFor, text: Path) -> None:
    """Broken records are counted over all tasks."""
    lines = [json.dumps({"text": f"Record number {i} of many. It has words."}) for i in range(600)]
    for broken in (50, 350, 550):
        lines[broken] = "{"
    (text / "e.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match="has 3 broken records and max_bad_records is 2"):
        build_corpus(recipe_for(text, input__max_bad_records=2))
    assert build_corpus(recipe_for(text, input__max_bad_records=3))["dropped"]["broken"] == 3


STARTED = """
import sys
from pathlib import Path
from data_prep.readers import listing
from data_prep.pipeline.build import build_corpus
from data_prep.config.schema import CorpusRecipe
listing.SLICE_BYTES = 3_200
if __name__ == "__main__":
    build_corpus(CorpusRecipe.model_validate_json(sys.argv[1]))
"""


@contextmanager
def started_build(recipe: CorpusRecipe, script: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a command in a session of its own, and give control when its first task is done."""
    script.write_text(STARTED)
    command = [sys.executable, str(script), recipe.model_dump_json()]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True
    ) as process:
        while not list(partial_of(recipe).glob("task_*.json")):
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
        yield process


def members(session: int) -> list[int]:
    """Return the processes of a session that still run."""
    found = subprocess.run(["ps", "-o", "pid=,stat=", "-s", str(session)], capture_output=True)
    lines = [line.split() for line in found.stdout.decode().splitlines()]
    return [int(pid) for pid, state in lines if not state.startswith("Z")]


def test_workers_end_with_killed_command(recipe_for: RecipeFor, text: Path, prose: Prose) -> None:
    """Workers of a command that is killed alone end at once, and the next command goes on."""
    for number in range(40):
        (text / f"f{number:02d}.txt").write_text(prose(f"f{number}", 40), "utf-8")
    recipe = recipe_for(text, workers=2)
    with started_build(recipe, text.parent / "started.py") as process:
        assert len(members(process.pid)) > 2
        process.kill()
        process.wait()
        ends = time.monotonic() + 20
        while members(process.pid) and time.monotonic() < ends:
            time.sleep(0.05)
    assert members(process.pid) == []
    assert build_corpus(recipe)["splits"]["train"]["documents"] > 1000


def test_killed_build_resumes(
    recipe_for: RecipeFor, text: Path, prose: Prose, capsys: pytest.CaptureFixture[str]
) -> None:
    """A killed command resumes with its finished tasks."""
    for number in range(40):
        (text / f"f{number:02d}.txt").write_text(prose(f"f{number}", 40), "utf-8")
    whole = build_corpus(recipe_for(text, corpus__path=text.parent / "whole"))
    recipe = recipe_for(text, workers=2)
    with started_build(recipe, text.parent / "started.py") as process:
        with pytest.raises(UserError, match="Another process is making"):
            build_corpus(recipe)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = len(list(partial_of(recipe).glob("task_*.json")))
    capsys.readouterr()
    assert build_corpus(recipe) == whole
    assert f"done before: {done}" in capsys.readouterr().err and done > 0
