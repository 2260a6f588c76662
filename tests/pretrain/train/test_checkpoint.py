"""A checkpoint is committed whole or not at all, and a damaged one is never loaded."""

import contextlib
import errno
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_prep.disk import clear_disk_errors
from data_prep.errors import UserError
from pretrain.checkpoint_manifest import FoundCheckpoint, find_newest
from pretrain.distributed import Cluster
from pretrain.run_facts import RunFacts
from pretrain.train.checkpoint import (
    Progress,
    check_continues,
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
)


class FakeEngine:
    """Writes one file as an engine's state; can fail as a full disk does, or be killed."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.failure = failure

    def save(self, folder: Path, tag: str, state: dict[str, Any]) -> None:
        (folder / tag).mkdir(parents=True)
        (folder / tag / "rank_0.pt").write_text(json.dumps(state))
        if self.failure:
            raise self.failure

    def load(self, folder: Path, tag: str) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((folder / tag / "rank_0.pt").read_text())
        return {**state, "universal_checkpoint_info": {}}

    def gather_fp32_weights(self) -> dict[str, torch.Tensor]:
        return {"weight": torch.arange(4.0)}


def save(folder: Path, cluster: Cluster, step: int, **options: Any) -> Path:
    engine: Any = FakeEngine(options.get("failure"))
    progress = Progress(step=step, samples_seen=10 * step, tokens_seen=100 * step)
    return save_checkpoint(folder, engine, progress, RunFacts(zero_stage=1), cluster, keep=2)


def newest_step(folder: Path) -> int:
    found = find_newest(folder)
    assert found is not None
    return found.facts.step


def test_checkpoint_round_trip(tmp_path: Path, alone: Cluster) -> None:
    """What was saved is found and loaded."""
    path = save(tmp_path, alone, step=3)
    found = find_newest(tmp_path)
    assert found is not None
    assert found.path == path
    assert found.facts.world_size == 1
    assert found.facts.zero_stage == 1
    assert set(found.files) == {"rank_0.pt", "model.safetensors"}
    engine: Any = FakeEngine()
    assert load_checkpoint(engine, found) == Progress(step=3, samples_seen=30, tokens_seen=300)


def test_kept_weights_are_in_checkpoint(tmp_path: Path, alone: Cluster) -> None:
    """Weights that no loss trains are stored with the trained ones, and are no engine's state."""
    engine: Any = FakeEngine()
    kept = {"bert.pooler.dense.bias": torch.ones(3)}
    path = save_checkpoint(tmp_path, engine, Progress(step=1), RunFacts(), alone, 1, kept)
    weights = load_file(path / "model.safetensors")
    assert set(weights) == {"weight", "bert.pooler.dense.bias"}
    assert torch.equal(weights["bert.pooler.dense.bias"], torch.ones(3))


def test_only_newest_are_kept(tmp_path: Path, alone: Cluster) -> None:
    """Older checkpoints than the newest `keep` are removed."""
    for step in (1, 2, 3, 10):
        save(tmp_path, alone, step)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step_00000003", "step_00000010"]


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    """A run without checkpoints starts at step 0."""
    assert find_newest(tmp_path) is None


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest", "no manifest"])
def test_damaged_newest_falls_back(
    tmp_path: Path, alone: Cluster, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    """A damaged newest checkpoint falls back to the one before it, with a warning."""
    save(tmp_path, alone, step=1)
    damage_checkpoint(save(tmp_path, alone, step=2), damage)
    assert newest_step(tmp_path) == 1
    warning = capsys.readouterr().err
    assert "step_00000002 is damaged" in warning


def test_all_damaged_is_an_error(tmp_path: Path, alone: Cluster) -> None:
    """When all checkpoints are damaged, nothing restarts silently."""
    damage_checkpoint(save(tmp_path, alone, step=1), "flip")
    damage_checkpoint(save(tmp_path, alone, step=2), "truncate")
    with pytest.raises(UserError, match=r"All 2 checkpoints in .* are damaged"):
        find_newest(tmp_path)


def test_kill_during_save_keeps_previous(tmp_path: Path, alone: Cluster) -> None:
    """A kill in the middle of a save leaves the checkpoint before it."""
    save(tmp_path, alone, step=1)
    with pytest.raises(KeyboardInterrupt):  # stands for a kill: nothing is cleaned up
        save(tmp_path, alone, step=2, failure=KeyboardInterrupt())
    assert (tmp_path / "step_00000002.writing").is_dir()
    assert newest_step(tmp_path) == 1
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]
    save(tmp_path, alone, step=2)
    assert newest_step(tmp_path) == 2


def test_full_disk_leaves_nothing_behind(tmp_path: Path, alone: Cluster) -> None:
    """A full disk is named in the error, and leaves nothing half written."""
    save(tmp_path, alone, step=1)
    with pytest.raises(UserError, match=r"The disk that holds .* is full"):
        save(tmp_path, alone, step=2, failure=OSError(errno.ENOSPC, "No space left on device"))
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]
    assert newest_step(tmp_path) == 1


@pytest.mark.parametrize("write", [torch.save, save_file])
def test_full_disk_errors_of_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Any, Path], None]
) -> None:
    """What torch and safetensors raise on a full disk is recognised."""
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    tensors = {"weight": torch.zeros(1 << 16)}
    with pytest.raises(UserError, match="is full"), clear_disk_errors(tmp_path), writes_up_to(4096):
        write(tensors, tmp_path / "weights")


@contextlib.contextmanager
def writes_up_to(limit_bytes: int) -> Iterator[None]:
    """Let writes come back short beyond a size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_other_errors_are_not_full_disk(tmp_path: Path, alone: Cluster) -> None:
    """Other failures pass unchanged."""
    with pytest.raises(RuntimeError, match="shape mismatch"):
        save(tmp_path, alone, step=2, failure=RuntimeError("shape mismatch"))


def test_nonfinite_weights_are_not_saved(
    tmp_path: Path, alone: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights with NaN or infinity never replace a good checkpoint."""
    save(tmp_path, alone, step=1)
    poisoned = {"layer.weight": torch.tensor([1.0, float("nan")])}
    monkeypatch.setattr(FakeEngine, "gather_fp32_weights", lambda engine: poisoned)
    with pytest.raises(UserError, match=r"After step 2 the weights layer\.weight are not finite"):
        save(tmp_path, alone, step=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]


def test_damaged_checkpoint_is_removed_first(tmp_path: Path, alone: Cluster) -> None:
    """A damaged checkpoint does not count among those that are kept."""
    for step in (2, 4, 6):
        save(tmp_path, alone, step)
    damage_checkpoint(tmp_path / "step_00000006", "flip")
    save(tmp_path, alone, step=5)  # the run went back to 4
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step_00000004", "step_00000005"]


WRITTEN = {
    "kind": "student",
    "corpus": "c",
    "teacher_weights": "t",
    "zero_stage": 1,
    "world_size": 2,
}


def found_with(**changes: Any) -> FoundCheckpoint:
    """Return a checkpoint whose manifest has some entries changed."""
    return FoundCheckpoint(Path("step_00000001"), facts_with(**changes), {})


def facts_with(**changes: Any) -> RunFacts:
    return RunFacts.from_dict({**WRITTEN, **changes})


@pytest.mark.parametrize(
    ("written", "now", "ranks", "sentence"),
    [
        ({}, {"corpus": "d"}, 2, "trained with the corpus c, but the recipe now leads to d"),
        ({}, {"teacher_weights": "u"}, 2, "trained with the teacher t"),
        ({}, {"zero_stage": 3}, 2, "written under ZeRO-1, which ZeRO-3 cannot load"),
        ({"zero_stage": 0}, {"zero_stage": 1}, 2, "written under ZeRO-0"),
        ({"identity": {"train.precision": "bf16"}}, {"zero_stage": 2}, 2, "under ZeRO-1, which"),
        ({"zero_stage": 3}, {"zero_stage": 3}, 4, "written by 2 ranks under ZeRO-3, and 4 ranks"),
        (
            {"identity": {"optim.name": "muon"}},
            {},
            4,
            "cannot divide the momentum of optim.name muon",
        ),
    ],
)
def test_other_run_is_not_continued(
    written: dict[str, Any], now: dict[str, Any], ranks: int, sentence: str
) -> None:
    """Another corpus or teacher is refused, and a ZeRO stage or ranks that cannot continue."""
    with pytest.raises(UserError, match=sentence):
        check_continues(found_with(**written), facts_with(**now), ranks)


@pytest.mark.parametrize(("was", "now", "ranks"), [(1, 1, 4), (1, 2, 2), (2, 1, 1), (3, 3, 2)])
def test_compatible_stages_and_ranks_continue(was: int, now: int, ranks: int) -> None:
    """Other ranks, and ZeRO stages with the same state, are continued."""
    check_continues(found_with(zero_stage=was), facts_with(zero_stage=now), ranks)


def damage_checkpoint(path: Path, damage: str) -> None:
    """Damage a committed checkpoint in one of several ways."""
    file = path / "rank_0.pt"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[0] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[:-1])
    elif damage == "remove":
        file.unlink()
    elif damage == "manifest":
        (path / "manifest.json").write_text("{")
    else:
        (path / "manifest.json").unlink()
