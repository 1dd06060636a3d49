"""A small real HTTP server on loopback that answers as a test has scripted it, and records what came."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> object:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """`breaks_off`: the connection is cut after the body, before its announced end."""

    status: int = 200
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)
    breaks_off: bool = False

    def content(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return b"" if self.body is None else json.dumps(self.body).encode()


Script = Answer | Callable[[Request], Answer]


def problem(
    status: int, code: str, detail: str, *, errors: list[dict[str, str]] | None = None, **headers: str
) -> Answer:
    body = {
        "type": "about:blank",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "instance": "/here",
        "code": code,
        "errors": errors or [],
        "added_in_a_later_release": True,
    }
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, body, {"Content-Type": "application/problem+json", **sent})


def event_stream(text: str, *, breaks_off: bool = False) -> Answer:
    return Answer(200, text.encode(), {"Content-Type": "text/event-stream"}, breaks_off)


class ScriptedService:
    """Each route answers with its scripts in order; the last one stays."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._scripts: dict[tuple[str, str], list[Script]] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def on(self, method: str, path: str, *scripts: Script) -> None:
        self._scripts[method, path] = list(scripts)

    def requests_for(self, method: str, path: str) -> list[Request]:
        return [r for r in self.requests if (r.method, r.path) == (method, path)]

    def answer(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            scripts = self._scripts.get((request.method, request.path))
            if scripts is None:
                return problem(404, "not_found", f"nothing is scripted for {request.method} {request.path}")
            script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
        return script(request) if callable(script) else script

    @contextmanager
    def running(self) -> Iterator["ScriptedService"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                parts = urlsplit(self.path)
                request = Request(
                    method=self.command,
                    path=parts.path,
                    query=dict(parse_qsl(parts.query)),
                    headers={name.lower(): value for name, value in self.headers.items()},
                    body=self._read_body(),
                )
                answer = service.answer(request)
                content = answer.content()
                self.send_response(answer.status)
                for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                promised = len(content) + (100 if answer.breaks_off else 0)
                self.send_header("Content-Length", str(promised))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)
                self.close_connection = self.close_connection or answer.breaks_off

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve

            def _read_body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    pieces = []
                    while size := int(self.rfile.readline(), 16):
                        pieces.append(self.rfile.read(size))
                        self.rfile.readline()
                    self.rfile.readline()
                    return b"".join(pieces)
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))

            def log_message(self, format: str, *args: object) -> None:
                """Silence: the requests are recorded."""

        return Handler


# Bodies as API.md has them, with a field that no client knows.

PNG = b"\x89PNG\r\n\x1a\n rest"

AT = "2026-02-03T04:05:06Z"


def a_dataset(**changes: object) -> dict[str, object]:
    return {
        "id": "ds_1", "name": "mnist", "version": 1, "state": "ready", "format": "image_csv", "bytes": 10,
        "sha256": "ab" * 32, "num_samples": 3, "splits": {"train": 2, "test": 1}, "classes": ["0", "1"],
        "features": {"image": {"dtype": "uint8", "shape": [1, 28, 28]}}, "stats": {}, "error": None,
        "created_at": AT, "later": 1,
    } | changes  # fmt: skip


def a_job(**changes: object) -> dict[str, object]:
    return {
        "id": "job_1", "name": "mnist-mlp", "state": "running", "terminal": False, "wanted": "run",
        "dataset": {"name": "mnist", "version": 1, "sha256": "ab" * 32}, "spec": {"name": "mnist-mlp"},
        "attempt": 1, "losses": 0,
        "progress": {"epoch": 1, "epochs": 2, "step": 5, "steps": 10, "fraction": 0.5},
        "metrics": {"train_loss": 0.5, "val_loss": None}, "best": None, "resolved": {}, "registered": None,
        "error": None, "transitions": [{"state": "queued", "at": AT, "reason": "submitted"}],
        "created_at": AT, "started_at": AT, "finished_at": None, "later": 1,
    } | changes  # fmt: skip


def succeeded_job() -> dict[str, object]:
    return a_job(
        state="succeeded",
        terminal=True,
        registered={"model": "mnist-mlp", "version": 3},
        metrics={"test_accuracy": 0.971},
    )


def failed_job() -> dict[str, object]:
    error = {
        "code": "non_finite_loss",
        "message": "the loss was not finite at step 7",
        "hint": "lower optimizer.lr",
        "pointer": "/optimizer/lr",
    }
    return a_job(state="failed", terminal=True, error=error)


def a_version(**changes: object) -> dict[str, object]:
    return {
        "id": "ver_1", "model": "mnist-mlp", "version": 3, "state": "ready", "task": "classification",
        "signature": {
            "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 1, 28, 28]}],
            "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 10]}],
        },
        "metrics": {"test_accuracy": 0.97},
        "lineage": {
            "job": "job_1", "checkpoint": "ckpt_1", "dataset": "mnist", "dataset_version": 1,
            "dataset_sha256": "ab" * 32, "seed": 0, "environment": {"torch": "2.15.0"},
        },
        "spec": {}, "created_at": AT, "classes": ["0", "1"], "transforms": [], "aliases": ["production"],
    } | changes  # fmt: skip


def a_move(seq: int, **changes: object) -> dict[str, object]:
    return {
        "seq": seq, "kind": "set", "from": 1, "to": 2, "at": AT, "reason": None,
        "by": {"owner": "default", "key": "key_1", "name": "ci"},
        "required": {
            "metric": "val_accuracy", "mode": "max", "min_delta": 0.0, "candidate": 0.95, "incumbent": 0.9,
            "rows": None,
        },
    } | changes  # fmt: skip


def a_reply(*labels: str, version: int = 3) -> dict[str, object]:
    predictions = [{"label": label, "index": 1, "score": 0.75} for label in labels]
    return {"model": "mnist-mlp", "version": version, "predictions": predictions}


def sse(kind: str, data: object, *, number: int | None = None) -> str:
    head = f"id: {number}\n" if number is not None else ""
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n"


def an_event(seq: int, kind: str = "epoch", **data: object) -> str:
    return sse(kind, {"seq": seq, "type": kind, "at": AT, "data": data}, number=seq)


def weights(data: bytes, **changes: Any) -> Answer:
    etag = f'"{hashlib.sha256(data).hexdigest()}"'
    return Answer(200, data, {"Content-Type": "application/octet-stream", "ETag": etag}, **changes)
