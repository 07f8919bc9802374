"""A bucket of Google Cloud Storage on this machine: the few calls of its JSON API that gcsfs makes, counted.

Objects are files of a folder; the bucket's name is the folder's first part.
"""

import email
import http.server
import json
import pathlib
import threading
import urllib.parse
from typing import ClassVar


class FakeBucket:
    """Serves `root` until closed. `requests`: (method, kind, object, range or "") of every call, in order."""

    def __init__(self, root: pathlib.Path):
        self.root, self.requests, self.failures = root, [], []
        handler = type("Handler", (_Handler,), {"bucket": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def count(self, kind: str) -> int:
        return sum(request[1] == kind for request in self.requests)


class _Handler(http.server.BaseHTTPRequestHandler):
    bucket: ClassVar[FakeBucket]
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        bucket, name, query = self._target()
        if name is None:
            return self._list(bucket, query)
        path = self.bucket.root / bucket / name
        wanted = self.headers.get("Range", "")
        kind = "media" if query.get("alt") == "media" else "metadata"
        self._note(kind, name, wanted)
        if self.bucket.failures:
            return self._answer(self.bucket.failures.pop(), b"try again")
        if not path.is_file():
            return self._answer(404, b'{"error": {"message": "No such object"}}')
        if kind == "metadata":
            return self._answer(200, json.dumps(self._facts(bucket, path)).encode())
        content = path.read_bytes()
        if wanted:
            start, stop = wanted.removeprefix("bytes=").split("-")
            return self._answer(206, content[int(start) : int(stop or len(content)) + 1])
        return self._answer(200, content)

    def do_POST(self):
        bucket, name, query = self._target()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if name is not None:
            source, target = name.split("/moveTo/o/")
            self._note("move", target)
            path = self._store(bucket, target, (self.bucket.root / bucket / source).read_bytes())
            (self.bucket.root / bucket / source).unlink()
            return self._answer(200, json.dumps(self._facts(bucket, path)).encode())
        if query.get("uploadType") == "multipart":
            message = email.message_from_bytes(
                b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body
            )
            facts, content = (part.get_payload(decode=True) for part in message.get_payload())
            name = json.loads(facts)["name"]
        else:
            content, name = body, query["name"]
        self._note("upload", name)
        path = self._store(bucket, name, content)
        return self._answer(200, json.dumps(self._facts(bucket, path)).encode())

    def do_DELETE(self):
        bucket, name, _ = self._target()
        self._note("delete", name)
        path = self.bucket.root / bucket / name
        if not path.is_file():
            return self._answer(404, b"{}")
        path.unlink()
        return self._answer(204, b"")

    def log_message(self, *_):
        pass

    def _target(self):
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        place = parts.path[parts.path.index("/b/") + 3 :]
        bucket, _, name = place.partition("/o")
        return bucket, urllib.parse.unquote(name[1:]) or None, query

    def _list(self, bucket: str, query: dict):
        prefix, self_prefix = query.get("prefix", ""), query.get("delimiter", "")
        self._note("list", prefix)
        items, folders = [], set()
        root = self.bucket.root / bucket
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_file() and name.startswith(prefix):
                rest = name[len(prefix) :]
                if self_prefix and "/" in rest:
                    folders.add(prefix + rest.split("/")[0] + "/")
                else:
                    items.append(self._facts(bucket, path))
        return self._answer(200, json.dumps({"items": items, "prefixes": sorted(folders)}).encode())

    def _facts(self, bucket: str, path: pathlib.Path) -> dict:
        name = path.relative_to(self.bucket.root / bucket).as_posix()
        return {"bucket": bucket, "name": name, "size": str(path.stat().st_size), "generation": "1",
                "updated": "2026-01-01T00:00:00Z", "timeCreated": "2026-01-01T00:00:00Z"}  # fmt: skip

    def _store(self, bucket: str, name: str, content: bytes) -> pathlib.Path:
        path = self.bucket.root / bucket / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def _note(self, kind: str, name: str, wanted: str = "") -> None:
        self.bucket.requests.append((self.command, kind, name, wanted))

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
