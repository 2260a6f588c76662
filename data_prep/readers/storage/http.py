"""Files of web servers, read from any byte on with the standard library."""

import base64
import http.client
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit, urlunsplit

_TIMEOUT_S = 60.0
_SKIP_BYTES = 1 << 20
# Answers after which another attempt may succeed, beside all of 500 and more.
_TRANSIENT = (408, 425, 429)
_NOT_FOUND = (404, 410)
_PARTIAL, _NOT_SATISFIABLE, _SERVER_ERROR = 206, 416, 500
# What web addresses may hold unquoted (RFC 3986), and the percent sign of what is quoted already.
_SAFE = "%/:=&?~#+!$,;'@()*[]"


class PermanentFailure(Exception):
    """A failure that another attempt does not mend."""


@dataclass(frozen=True, slots=True)
class HttpFacts:
    """What a server tells of a file: its size, its version, and whether parts of it can be read."""

    size: int | None
    identity: str
    ranged: bool


class HttpFile:
    """The body of a file from a byte on.

    Raises `FileNotFoundError`, `PermanentFailure`, or any `OSError` and `HTTPException` for a
    failure that may pass.
    """

    def __init__(self, url: str, offset: int, size: int, identity: str) -> None:
        self._answer = _get(url, f"bytes={offset}-" if offset else None)
        try:
            self._check(offset, size, identity)
        except BaseException:
            self._answer.close()
            raise

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes."""
        return self._answer.read(size)

    def close(self) -> None:
        """Close the connection."""
        self._answer.close()

    def _check(self, offset: int, size: int, identity: str) -> None:
        """Check that the answer is of the file that was listed, and move to the byte `offset`."""
        found = _facts_of(self._answer)
        if identity and found.identity and found.identity != identity:
            raise PermanentFailure(
                f"it has changed since it was listed, from {identity} to {found.identity}"
            )
        if found.size not in (None, size):
            raise PermanentFailure(
                f"it has changed since it was listed, from {size:,} to {found.size:,} bytes"
            )
        span = self._answer.headers.get("Content-Range", "")
        if self._answer.status == _PARTIAL and f"bytes {offset}-" not in span:
            raise ConnectionError(f"the server sends {span} instead of bytes from {offset}")
        if offset and self._answer.status != _PARTIAL:
            self._skip(offset)

    def _skip(self, left: int) -> None:
        while left and (block := self._answer.read(min(left, _SKIP_BYTES))):
            left -= len(block)


def describe_http(url: str) -> HttpFacts:
    """Return what the server tells of a file.

    Its first byte is requested, because signed addresses often allow GET alone.
    """
    with _get(url, "bytes=0-0") as answer:
        return _facts_of(answer)


def _facts_of(answer: http.client.HTTPResponse) -> HttpFacts:
    ranged = answer.status in (_PARTIAL, _NOT_SATISFIABLE)
    given = answer.headers.get("Content-Range" if ranged else "Content-Length", "")
    size = re.search(r"(\d+)\s*$", given)
    versions = (
        f"{key} {value}" for key in ("ETag", "Last-Modified") if (value := answer.headers.get(key))
    )
    return HttpFacts(
        size=int(size[1]) if size else None,
        identity=next(versions, "").replace('"', ""),
        ranged=ranged,
    )


def _get(url: str, span: str | None) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    plain = quote(urlunsplit((parts.scheme, host, parts.path, parts.query, "")), safe=_SAFE)
    request = urllib.request.Request(plain, headers={"User-Agent": "stillhouse"})
    if span:
        request.add_header("Range", span)
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        # Not for the host of a redirection, which must not see the password.
        request.add_unredirected_header(
            "Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}"
        )
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == _NOT_SATISFIABLE and re.search(
            r"/0\s*$", error.headers.get("Content-Range", "")
        ):
            return error  # type: ignore[return-value]  # an empty file has no first byte
        error.close()
        if error.code in _NOT_FOUND:
            raise FileNotFoundError(url) from error
        if error.code < _SERVER_ERROR and error.code not in _TRANSIENT:
            raise PermanentFailure(f"HTTP {error.code} {error.reason}") from error
        raise ConnectionError(f"HTTP {error.code} {error.reason}") from error
    return answer
