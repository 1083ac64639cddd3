"""As much of a W&B server as a run needs to start, on loopback; it fails when it is told to."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PROJECT = {"id": "p", "name": "svd", "entity": {"id": "e", "name": "me"}}
_BUCKET = {
    "id": "b",
    "name": "run",
    "displayName": "run",
    "description": "",
    "config": "{}",
    "sweepName": None,
    "project": _PROJECT,
    "historyLineCount": 0,
}
_ANSWERS: dict[str | None, Any] = {
    "RunResumeStatus": {"model": None},
    "UpsertBucket": {"upsertBucket": {"bucket": _BUCKET, "inserted": True}},
}


class WandbStub:
    """Answers what starts a run; from `is_failing` on, every request gets a 500."""

    def __init__(self) -> None:
        self.is_failing = False
        self.num_failed = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "WandbStub":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(stub: WandbStub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if stub.is_failing:
                stub.num_failed += 1
                self._send(500, {})
            elif self.path == "/graphql":
                operation = json.loads(body).get("operationName")
                self._send(200, {"data": _ANSWERS.get(operation, {})})
            else:
                self._send(200, {})

        do_GET = do_POST = do_PUT = answer

        def _send(self, code: int, data: dict[str, Any]) -> None:
            content = json.dumps(data).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
