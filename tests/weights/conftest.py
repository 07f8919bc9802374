"""A server on this machine, an empty cache, and the narrow YAMNet of the fixtures in the place of the published one."""

import hashlib
import http.server
import pathlib
import threading

import pytest

from ssu_jax.weights import PublicFile, Published, table

SMALL = pathlib.Path(__file__).parents[1] / "fixtures/yamnet/weights.tflite"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `content` under every name; the answers may be `faults`, one after the other, until there are none."""

    content, faults, asked = b"", [], []

    def do_GET(self):
        type(self).asked.append(self.headers.get("Range"))
        fault = type(self).faults.pop(0) if type(self).faults else ""
        if fault == "gone":
            self.send_error(404)
            return
        start = int((self.headers.get("Range") or "bytes=0-").split("=")[1][:-1])
        if fault == "whole":  # a server that does not do parts
            start = 0
        part = self.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part[: len(part) // 2] if fault == "break" else part)

    def log_message(self, *args):
        """Quiet."""


@pytest.fixture
def server(monkeypatch):
    """The handler's class, to set what it answers; `server.url` is where."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    Handler.content, Handler.faults, Handler.asked = SMALL.read_bytes(), [], []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        Handler.url = f"http://127.0.0.1:{running.server_address[1]}"
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield Handler
        running.shutdown()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache of weights: empty, and this test's own."""
    monkeypatch.setenv("SSU_WEIGHTS_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def small(monkeypatch, cache):
    """Puts the small network into the table as `yamnet`; gives a function that says where it is to be had."""
    content = SMALL.read_bytes()

    def public(url: str = "http://127.0.0.1:9/small.tflite") -> Published:
        file = PublicFile("small.tflite", url, hashlib.sha256(content).hexdigest(), len(content))
        monkeypatch.setitem(table.TABLE, "yamnet", Published("yamnet", "yamnet", "small", "Apache-2.0", file))
        return table.TABLE["yamnet"]

    public()
    return public
