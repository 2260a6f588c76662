"""Locks: one holder at a time, across processes, and released however a process ends."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep.errors import UserError
from data_prep.locks import creation_lock, hold_lock

HOLDER = """
import sys, time
from pathlib import Path
from data_prep.locks import hold_lock
with hold_lock(Path(sys.argv[1]), "making it", shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """Start a process that holds the lock until it is killed."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "lock"), request.param]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("holder", ["alone"], indirect=True)
def test_lock_excludes_second_process(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """A second process is refused until the first is killed."""
    for shared in (False, True):
        with (
            pytest.raises(UserError, match="Another process is making it: wait"),
            hold_lock(tmp_path / "lock", "making it", shared=shared),
        ):
            pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with hold_lock(tmp_path / "lock", "making it"):
        pass


@pytest.mark.parametrize("holder", ["alone"], indirect=True)
def test_timeout_outlasts_ending_process(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """A lock that is freed within the time given is taken; one that is not is refused."""
    with (
        pytest.raises(UserError, match="Another process"),
        hold_lock(tmp_path / "lock", "making it", timeout_s=0.2),
    ):
        pass
    threading.Timer(0.3, holder.kill).start()
    with hold_lock(tmp_path / "lock", "making it", timeout_s=30.0):
        pass


@pytest.mark.parametrize("holder", ["shared"], indirect=True)
def test_shared_lock_admits_shared_only(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    """A shared lock admits shared holders and no exclusive one."""
    with hold_lock(tmp_path / "lock", "making it", shared=True):
        pass
    with pytest.raises(UserError, match="Another process"), hold_lock(tmp_path / "lock", "it"):
        pass


def test_missing_locks_are_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file system without locks is named in the log."""

    def refuse(file: object, flags: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with hold_lock(tmp_path / "lock", "making it"):
        pass
    assert "has no locks: make sure that no other process is making it" in capsys.readouterr().err


CREATOR = """
import sys
from pathlib import Path
from data_prep.locks import creation_lock
path = Path(sys.argv[1])
with creation_lock(path) as held:
    assert held
    if path.exists():
        print("found")
    else:
        path.mkdir()
        print("made")
"""


def test_creation_lock_admits_one_creator(tmp_path: Path) -> None:
    """Of several processes that find a path missing, one makes it, and no lock file is left."""
    command = [sys.executable, "-c", CREATOR, str(tmp_path / "made")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    printed = [process.communicate()[0].strip() for process in started]
    assert sorted(printed) == ["found", "found", "found", "made"]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_creation_lock_reports_missing_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without locks the block runs all the same, and the log warns of other processes."""

    def refuse(file: object, flags: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with creation_lock(tmp_path / "made") as held:
        assert not held
    assert "another process may be making it too" in capsys.readouterr().err
