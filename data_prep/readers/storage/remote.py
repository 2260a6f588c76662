"""Files of remote storage: addresses such as s3://bucket/key, listed and opened through fsspec.

http:// and https:// need no package, see `http.py`. An address may hold a password or a token, in
front of its host or behind its question mark: both are used to open it, and never shown.
"""

import glob
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote

from data_prep.errors import UserError, without_secrets
from data_prep.progress import log
from data_prep.readers.storage.http import HttpFile, PermanentFailure, describe_http
from data_prep.readers.storage.remote_stream import RemoteStream

# Seconds before each further attempt, after which a read is given up.
RETRY_DELAYS_S = (1.0, 2.0, 4.0)
_BLOCK_BYTES = 4 << 20
_HTTP = ("http", "https")
_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
    "hf": "huggingface_hub",
    "oss": "ossfs",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "webdav": "webdav4",
}
# What the file systems call the checksum or version of a file, best first.
_DATES = "LastModified last_modified updated mtime modified created".split()
_IDENTITIES = (
    *"etag ETag md5Hash crc32c content_md5 checksum sha256 blob_id oid version generation".split(),
    *_DATES,
)
_MAX_PROBLEM_CHARS = 200

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class RemotePath:
    """A file of remote storage.

    Attributes:
        url: that gives the file system, with password and token.
        path: of the file there.
        size: bytes.
        identity: its checksum, version or date, if the file system gives any.
        ranged: whether it can be read from any byte on.
    """

    url: str = field(repr=False)
    path: str = field(repr=False)
    size: int
    identity: str = ""
    ranged: bool = True

    def __str__(self) -> str:
        return shown_url(_full_url(self.url, self.path))

    @property
    def name(self) -> str:
        """The last part of the path, without a token."""
        name = PurePosixPath(shown_url(self.path)).name
        return unquote(name) if is_http(self.url) else name

    @property
    def suffix(self) -> str:
        """The last suffix of the name."""
        return PurePosixPath(self.name).suffix

    def open_stream(self) -> RemoteStream:
        """Return the file, open for reading from any byte on."""
        return RemoteStream(self._open, self._retried, str(self), self.size)

    def _open(self, offset: int) -> Any:
        """Open the file at a byte; this may fail for a while."""
        if is_http(self.url):
            return HttpFile(self.path, offset, self.size, self.identity)
        system, _ = _file_system(self.url)
        file = system.open(self.path, "rb", block_size=_BLOCK_BYTES)
        if _differ(self.identity, found := _identity(system.info(self.path))):
            file.close()
            raise PermanentFailure(
                f"it has changed since it was listed, from {self.identity} to {found}"
            )
        file.seek(offset)
        return file

    def _retried(self, attempt: Callable[[], bytes]) -> bytes:
        return with_retries(attempt, str(self), self.url)


def is_http(url: str) -> bool:
    """Tell whether an address is a web address."""
    return _scheme_of(url) in _HTTP


def shown_url(url: str) -> str:
    """Return an address without user, password and query, which may be secret."""
    return without_secrets(url.partition("?")[0] if is_http(url) else url)


def find_remote(url: str) -> tuple[list[tuple[RemotePath, tuple[str, ...]]], bool]:
    """Return the files of an address, each with the parts of its path below it.

    Args:
        url: of a file, a folder or a glob.

    Returns:
        The files in no particular order, the first part the name of the folder itself, and
        whether the address is that of one file.

    Raises:
        UserError: when it does not exist or cannot be read, and for a missing package.
    """
    if is_http(url):
        return [_http_file(url)], True
    system, path = _file_system(url)
    return with_retries(lambda: _listed(system, url, path), shown_url(url), url)


def with_retries(attempt: Callable[[], Result], shown: str, url: str) -> Result:
    """Return the result of an attempt, which is repeated while the storage fails.

    Raises:
        UserError: when it fails for good.
    """
    for delay_s in (*RETRY_DELAYS_S, None):
        try:
            return attempt()
        except (UserError, TypeError, AttributeError, NameError):
            raise
        except FileNotFoundError as error:
            raise UserError(f"The input {shown} does not exist: correct input.path.") from error
        except Exception as error:  # every file system raises errors of its own
            problem = _problem(error, url, shown)
            if delay_s is None or isinstance(error, PermissionError | PermanentFailure):
                raise UserError(
                    f"The input {shown} cannot be read ({problem}): correct input.path or the "
                    "access to it, or try again later."
                ) from error
            log(f"{shown}: {problem}; trying again in {delay_s:g} s")
            time.sleep(delay_s)
    raise AssertionError("the last attempt returns or raises")


def _http_file(url: str) -> tuple[RemotePath, tuple[str, ...]]:
    shown = shown_url(url)
    if "*" in shown or shown.endswith("/"):
        raise UserError(
            f"The input {shown} names no file, and web servers list none: give the address of "
            "each file in input.paths."
        )
    facts = with_retries(lambda: describe_http(url), shown, url)
    if facts.size is None:
        raise UserError(
            f"The server of {shown} does not tell its size, so that a broken connection looks like "
            "its end: download the file, and give its path."
        )
    path = RemotePath(url, url, facts.size, facts.identity, facts.ranged)
    return path, (path.name,)


def _listed(
    system: Any, url: str, path: str
) -> tuple[list[tuple[RemotePath, tuple[str, ...]]], bool]:
    if glob.has_magic(path) and not system.exists(path):
        top = path[: path[: re.search(r"[*?[]", path).start()].rfind("/") + 1]  # type: ignore[union-attr]
        found = system.glob(path, detail=True)
        for name, info in list(found.items()):
            if info["type"] == "directory":
                found.update(system.find(name, detail=True))
        if not found:
            raise UserError(f"The input {shown_url(url)} matches no file: correct input.path.")
    else:
        top = path.rstrip("/").rpartition("/")[0] + "/"
        info = system.info(path)
        if info["type"] != "directory":
            return [(_remote_path(url, path, info), (PurePosixPath(path).name,))], True
        found = system.find(path, detail=True)
    files = [
        (_remote_path(url, name, info), PurePosixPath(name.removeprefix(top)).parts)
        for name, info in found.items()
        if info["type"] != "directory"
    ]
    return files, False


def _remote_path(url: str, path: str, info: dict[str, Any]) -> RemotePath:
    if info.get("size") is None:
        raise UserError(f"The input {shown_url(_full_url(url, path))} has no known size: copy it.")
    return RemotePath(url, path, int(info["size"]), _identity(info))


def _identity(info: dict[str, Any]) -> str:
    key = next((key for key in _IDENTITIES if info.get(key)), None)
    if key is None:
        return ""
    value = info[key]
    # A listing may give a date as a number, and the file itself as a date.
    if isinstance(value, int | float) and key in _DATES:
        value = datetime.fromtimestamp(value, UTC)
    return f"{key} {str(value).strip(chr(34))}"


def _differ(listed: str, found: str) -> bool:
    """Tell whether two identities of the same sort differ."""
    return listed.partition(" ")[0] == found.partition(" ")[0] and listed != found


def _scheme_of(url: str) -> str:
    return url.partition("://")[0].lower()


def _full_url(url: str, path: str) -> str:
    if is_http(url):
        return path
    return f"{_scheme_of(url)}://{path.lstrip('/')}"


def _file_system(url: str) -> tuple[Any, str]:
    # Here, because most corpora are local.
    import fsspec

    scheme, shown = _scheme_of(url), shown_url(url)
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(scheme)
        remedy = f"pip install {package}" if package else f"install it ({error})"
        raise UserError(
            f"The input {shown} needs {package or 'a package'}, which is not installed: {remedy}."
        ) from error
    except ValueError as error:
        raise UserError(
            f"The input {shown} has the unknown protocol {scheme}://: correct input.path "
            "(s3://, gs://, hf://, https://, file://)."
        ) from error
    except Exception as error:  # such as missing credentials
        raise UserError(
            f"The input {shown} cannot be opened ({_problem(error, url, shown)}): correct "
            "input.path or the access to it."
        ) from error
    return system, str(path)


def _problem(error: Exception, url: str, shown: str) -> str:
    """Return what an error says, on one line, without the secrets of any address in it."""
    text = " ".join(str(error).split()).replace(url, shown).rstrip(".")
    return without_secrets(text)[:_MAX_PROBLEM_CHARS] or type(error).__name__
