"""A hub on loopback: serves the Parquet branch of data sets from a folder, the way the Hugging Face hub does."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BRANCH = "refs/convert/parquet"


class _Handler(BaseHTTPRequestHandler):
    root: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, body: bool) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        self.asked.append("/".join(parts))
        match parts:
            case ["api", "datasets", owner, name, "revision", revision] if revision == BRANCH:
                siblings = [{"rfilename": path} for path in self._files(f"{owner}/{name}")]
                self._json({"id": f"{owner}/{name}", "sha": COMMIT, "siblings": siblings, "tags": []}, body)
            case ["api", "datasets", owner, name, "tree", revision] if revision == COMMIT:
                rows = [
                    {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for path, data in self._files(f"{owner}/{name}").items()
                ]
                self._json(rows, body)
            case ["datasets", owner, name, "resolve", revision, *rest] if revision == COMMIT:
                data = self._files(f"{owner}/{name}").get("/".join(rest))
                self._send(404, b"", body) if data is None else self._send(200, data, body)
            case _:
                self._send(404, b'{"error": "no such place"}', body)

    def _files(self, name: str) -> dict[str, bytes]:
        folder = self.root / name
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    def _json(self, value: Any, body: bool) -> None:
        self._send(200, json.dumps(value).encode(), body, "application/json")

    def _send(self, status: int, data: bytes, body: bool, kind: str = "application/octet-stream") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.end_headers()
        if body:
            self.wfile.write(data)


@contextmanager
def hub(root: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a hub that serves ``root/OWNER/NAME/...``, and the paths that it was asked for."""
    handler = type("Handler", (_Handler,), {"root": root, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler.asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
