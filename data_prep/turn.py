"""Taking turns: one process at a time makes a thing that several may find missing."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from data_prep.progress import log

# What file systems without locks answer, Lustre without `-o flock` among them.
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
# Writable, because NFS makes record locks of these.
_FLAGS = os.O_RDWR | os.O_CREAT


@contextlib.contextmanager
def turn_to_make(path: Path) -> Iterator[bool]:
    """Hold the lock file `<name>.lock` beside a path, after waiting until nobody else does.

    The caller then looks again whether the path exists. The system frees the lock of a process
    that dies, on whichever node; the file is removed at the end, and one left over is harmless.

    Yields:
        whether this process is alone: False where the file system has no locks, after a line in
        the log that says so.
    """
    lock = path.with_name(path.name + ".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock, _FLAGS, 0o666)
    try:
        alone = _wait(descriptor, path)
        # Who held it has removed it; a newcomer may hold another file of the same name by now.
        while alone and not path.exists() and not _is_still(lock, descriptor):
            os.close(descriptor)
            descriptor = os.open(lock, _FLAGS, 0o666)
            alone = _wait(descriptor, path)
        yield alone
    finally:
        # Before the lock is let go, or the file that is removed could be the next holder's.
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _wait(descriptor: int, path: Path) -> bool:
    """Lock an open file, as soon as it is free; False where there are no locks."""
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"waiting for {path}, that another process is making")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log(f"the file system of {path} has no locks: another process may be making it too")
        return False
    return True


def _is_still(lock: Path, descriptor: int) -> bool:
    """Tell whether the open file is still the one of that name."""
    try:
        return os.path.samestat(lock.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
