"""A stand-in of the Hugging Face hub on this machine: it serves folders, and refuses some."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

REVISION = "c0ffee" * 6 + "c0ff"


class Hub(ThreadingHTTPServer):
    """Repositories by name; a request for any other is answered as the hub does."""

    repositories: dict[str, Path]
    gated: set[str]
    sent: list[str]  # files that were downloaded


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the output of the tests clean."""

    def _answer(self, body: bool) -> None:
        path = self.path.split("?")[0].removeprefix("/")
        if path.startswith("api/models/"):
            rest = path.removeprefix("api/models/")
            name, _, listing = rest.partition("/tree/")
            name = name.split("/revision/")[0]
            if name not in self.server.repositories:
                self._refuse(404, "RepoNotFound")
            else:
                self._send(self._tree(name) if listing else {"id": name, "sha": REVISION})
            return
        name, _, file = path.partition("/resolve/")
        if name in self.server.gated:
            self._refuse(403, "GatedRepo")
            return
        stored = self.server.repositories[name] / file.partition("/")[2]
        if body:
            self.server.sent.append(stored.name)
        self._send_bytes(stored.read_bytes(), body)

    def _tree(self, name: str) -> list[dict[str, object]]:
        folder = self.server.repositories[name]
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return [
            {
                "type": "file",
                "path": str(path.relative_to(folder)),
                "size": path.stat().st_size,
                "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
            }
            for path in files
        ]

    def _send(self, content: object) -> None:
        self._send_bytes(json.dumps(content).encode(), body=True)

    def _send_bytes(self, content: bytes, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def serve_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """Serve an empty hub, which huggingface_hub of this process uses with a cache of its own."""
    hub = Hub(("127.0.0.1", 0), _Handler)
    hub.repositories, hub.gated, hub.sent = {}, set(), []
    address = f"http://127.0.0.1:{hub.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
