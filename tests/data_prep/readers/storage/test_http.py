"""Input from web servers, over connections that break."""

import base64
import http.server
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from data_prep.config.schema import CorpusRecipe, InputOptions
from data_prep.errors import UserError
from data_prep.pipeline.build import build_corpus
from data_prep.readers import listing
from data_prep.readers.dispatch import read_documents
from data_prep.readers.listing import cut_into_tasks, list_sources
from tests.data_prep.readers.storage.remote_documents import (
    DOCUMENTS,
    FORMATS,
    LINES,
    read,
)

RecipeFor = Callable[..., CorpusRecipe]


@dataclass
class Server:
    """A web server of this machine, and what goes wrong with it."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranged: bool = True
    sized: bool = True
    failures: int = 0  # answers with status 503 before the first good one
    cut_after: int | None = None  # bytes of a body, after which the connection is closed
    cuts: int = 0  # how many bodies are cut
    password: str = ""
    version: str = "one"
    shift: int = 0  # by which answers begin too late
    requests: list[str] = field(default_factory=list)


def handler_of(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Keep quiet."""

        def do_GET(self) -> None:
            server.requests.append(f"{self.path} {self.headers.get('Range')}")
            body = server.files.get(unquote(urlsplit(self.path).path))
            if server.failures:
                server.failures -= 1
                self.send_error(503)
            elif server.password not in self.headers.get("Authorization", ""):
                self.send_error(401)
            elif body is None:
                self.send_error(404)
            else:
                self._send(body)

        def _send(self, body: bytes) -> None:
            match = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            start, stop = 0, len(body)
            if match and server.ranged:
                start, stop = int(match[1]), int(match[2] or stop - 1) + 1
                start += server.shift if start else 0
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(body)}")
            else:
                self.send_response(200)
            if server.sized:
                self.send_header("Content-Length", str(stop - start))
            self.send_header("ETag", f'"{server.version}"')
            self.end_headers()
            part = body[start:stop]
            if server.cuts and server.cut_after is not None and len(part) > server.cut_after:
                server.cuts -= 1
                part = part[: server.cut_after]
            self.wfile.write(part)

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler_of(made))
    made.url = f"http://127.0.0.1:{web.server_address[1]}"
    thread = threading.Thread(target=web.serve_forever, args=(0.01,))
    thread.start()
    yield made
    web.shutdown()
    thread.join()
    web.server_close()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("ranged", [True, False])
def test_web_files_match_local(server: Server, name: str, ranged: bool) -> None:
    """Files of a web server are read as local ones, with and without ranges of bytes."""
    if not ranged and name not in ("a.jsonl", "a.jsonl.gz"):
        pytest.skip("formats of columns are read from any byte on")
    server.ranged = ranged
    server.files[f"/data/{name}"] = FORMATS[name]()
    assert read(path=f"{server.url}/data/{name}") == DOCUMENTS


def test_web_file_is_cut_into_slices(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a server that gives ranges is cut, any other is one slice."""
    monkeypatch.setattr(listing, "SLICE_BYTES", 10_000)
    server.files["/a.jsonl"] = LINES
    options = InputOptions(path=f"{server.url}/a.jsonl")
    assert len(cut_into_tasks(list_sources({"text": options}))) == round(len(LINES) / 10_000)
    server.ranged = False
    assert len(cut_into_tasks(list_sources({"text": options}))) == 1


@pytest.mark.parametrize("ranged", [True, False])
def test_broken_connections_are_resumed(server: Server, ranged: bool) -> None:
    """Failing answers and bodies that end early lose and repeat nothing."""
    server.ranged = ranged
    server.files["/a.jsonl"] = LINES
    server.failures, server.cut_after, server.cuts = 3, 7_001, 3
    assert read(slice_bytes=1 << 20, path=f"{server.url}/a.jsonl") == DOCUMENTS
    assert not server.cuts and not server.failures


def test_lasting_failure_is_an_error(server: Server) -> None:
    """Four failures of one request are an error, and missing files are one at once."""
    server.files["/a.jsonl"] = LINES
    server.failures = 4
    with pytest.raises(UserError, match=r"a\.jsonl cannot be read \(HTTP 503"):
        read(path=f"{server.url}/a.jsonl")
    server.requests.clear()
    with pytest.raises(UserError, match=r"b\.jsonl does not exist"):
        read(path=f"{server.url}/b.jsonl")
    assert len(server.requests) == 1


def test_server_without_size_is_refused(server: Server) -> None:
    """Without a size an early end looks like the end, so such a server is refused."""
    server.files["/a.jsonl"], server.ranged, server.sized = LINES, False, False
    with pytest.raises(UserError, match="does not tell its size"):
        read(path=f"{server.url}/a.jsonl")


def test_changed_web_file_is_refused(server: Server) -> None:
    """A file that changes after it was listed is refused."""
    server.files["/a.jsonl"] = LINES
    options = InputOptions(path=f"{server.url}/a.jsonl")
    ((piece,),) = cut_into_tasks(list_sources({"text": options}))
    server.version = "two"
    with pytest.raises(
        UserError, match="has changed since it was listed, from ETag one to ETag tw"
    ):
        list(read_documents(piece, options, Counter()))


def test_wrong_range_is_not_spliced(server: Server) -> None:
    """An answer with other bytes than were asked for is never taken, nor a file of another size."""
    server.files["/a.jsonl"] = LINES
    path = f"{server.url}/a.jsonl"
    server.shift = 7
    with pytest.raises(UserError, match=r"the server sends bytes .* instead of bytes from"):
        read(path=path)
    server.shift = 0
    options = InputOptions(path=path)
    ((piece,),) = cut_into_tasks(list_sources({"text": options}))
    server.files["/a.jsonl"] = LINES[:-100]
    with pytest.raises(UserError, match=r"has changed since it was listed, from .* bytes"):
        list(read_documents(piece, options, Counter()))


@pytest.mark.parametrize("path", ["/folder/", "/*.jsonl"])
def test_web_folders_are_refused(server: Server, path: str) -> None:
    """Folders and globs of web servers are refused with what to give instead."""
    with pytest.raises(UserError, match=r"web servers list none: give .* in input\.paths"):
        read(path=server.url + path)


def test_corpus_of_web_file_shows_no_secret(
    server: Server, recipe_for: RecipeFor, capsys: pytest.CaptureFixture[str], prose: Any
) -> None:
    """User, password and token of an address open the file, and are in no log or manifest."""
    server.files["/my text.txt"] = prose("web", 40).encode()
    server.password = base64.b64encode(b"anna:geheim").decode()
    address = server.url.replace("//", "//anna:geheim@") + "/my text.txt?sig=t0ken"
    recipe = recipe_for(address)
    manifest = build_corpus(recipe)
    assert manifest["sources"][0]["path"] == "my text.txt"
    assert manifest["sources"][0]["identity"] == "ETag one"
    assert any("sig=t0ken" in request for request in server.requests)
    server.failures = 9
    with pytest.raises(UserError) as error:
        build_corpus(recipe)
    written = [file.read_bytes() for file in recipe.corpus.path.rglob("*.json")]
    shown = f"{capsys.readouterr()} {written} {error.value}"
    assert "geheim" not in shown and "t0ken" not in shown and "anna" not in shown
    server.failures, server.version = 0, "two"
    with pytest.raises(UserError, match="was made with another list of sources"):
        build_corpus(recipe)
