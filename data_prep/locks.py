"""File locks between processes, also on different nodes, so that two never write into one folder.

The system frees the lock of a process that dies, on whichever node. File systems without locks are
named in the log, and the work goes on without one.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from data_prep.errors import UserError
from data_prep.progress import log

_BUSY = (errno.EAGAIN, errno.EACCES)
# Errors of file systems without locks, Lustre without `-o flock` among them.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_RETRY_S = 0.05
# Writable, because NFS makes record locks of these.
_FLAGS = os.O_RDWR | os.O_CREAT


@contextlib.contextmanager
def hold_lock(
    path: Path, what: str, *, shared: bool = False, timeout_s: float = 0.0
) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; fail if it stays held elsewhere.

    Args:
        path: a file, created if it is missing, and left behind: removing it would race with a
            process that has opened it to lock it.
        what: the work that must not be done twice, for the message.
        shared: whether other shared holders are allowed.
        timeout_s: how long to try, where the holder may be a process that is just ending.

    Raises:
        UserError: when another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            _flock(file.fileno(), fcntl.LOCK_SH if shared else fcntl.LOCK_EX, timeout_s)
        except OSError as error:
            if error.errno in _BUSY:
                raise UserError(
                    f"Another process is {what}: wait until it has ended, or choose another path."
                ) from error
            if error.errno not in _NO_LOCKS:
                raise
            log(f"{path.parent} has no locks: make sure that no other process is {what}")
        yield


def _flock(descriptor: int, kind: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_S)
        else:
            return


@contextlib.contextmanager
def creation_lock(path: Path) -> Iterator[bool]:
    """Hold the lock file `<name>.lock` beside a path that several processes may want to create.

    Blocks while another process holds it; check again inside the block whether the path exists. The
    lock file is removed at the end, and one left behind is harmless.

    Yields:
        whether the lock is held: False where the file system has no locks, which is logged.
    """
    lock = path.with_name(path.name + ".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock, _FLAGS, 0o666)
    try:
        held = _lock(descriptor, path)
        # The last holder has removed its file; another process may hold a new one of that name.
        while held and not path.exists() and not _has_name(descriptor, lock):
            os.close(descriptor)
            descriptor = os.open(lock, _FLAGS, 0o666)
            held = _lock(descriptor, path)
        yield held
    finally:
        # Before the lock is released, or the file that is removed could be the next holder's.
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> bool:
    """Lock an open file, as soon as it is free; return False where there are no locks."""
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"waiting for {path}, which another process is making")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        log(f"the file system of {path} has no locks: another process may be making it too")
        return False
    return True


def _has_name(descriptor: int, path: Path) -> bool:
    """Tell whether an open file is still the one at a path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
