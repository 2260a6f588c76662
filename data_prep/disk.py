"""Full disks: every library reports one in its own way; here they become one `UserError`."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from data_prep.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)
# A file system that refuses a write may still report a few free blocks.
_NOTHING_LEFT_BYTES = 1 << 20


@contextlib.contextmanager
def clear_disk_errors(path: Path) -> Iterator[None]:
    """Turn a failure to write `path` into a `UserError`; other failures pass unchanged.

    torch and safetensors raise errors of their own, without an errno, on a short write, so the
    free space of the disk is checked as well.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if _is_full(error, path):
            raise UserError(
                f"The disk that holds {path} is full: free some space, or choose another path."
            ) from error
        if isinstance(error, OSError):
            raise UserError(
                f"Making {path} failed: {error}; correct the path or its permissions."
            ) from error
        raise


def _is_full(error: Exception, path: Path) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    existing = next(folder for folder in (path, *path.resolve().parents) if folder.exists())
    return shutil.disk_usage(existing).free < _NOTHING_LEFT_BYTES
