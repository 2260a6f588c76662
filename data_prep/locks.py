"""Locks between processes, also on different nodes, so that two never write into one folder."""

import contextlib
import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path

from data_prep.errors import UserError
from data_prep.progress import log
from data_prep.turn import NO_LOCKS

_BUSY = (errno.EAGAIN, errno.EACCES)


@contextlib.contextmanager
def hold_lock(path: Path, what: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock `path` while the block runs; it is free again when the process ends, however.

    Args:
        path: a file, made if it is missing, and left behind: removing it would race with a
            process that has opened it and waits.
        what: what would be done twice, for the message.
        shared: whether others may hold it too, if they also ask for a share.

    Raises:
        UserError: when another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _BUSY:
                raise UserError(
                    f"Another process is {what}: wait until it has ended, or choose another path."
                ) from error
            if error.errno not in NO_LOCKS:
                raise
            log(f"{path.parent} has no locks: make sure that nobody else is {what}")
        yield
