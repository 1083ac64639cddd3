"""A loopback proxy before an HTTP server that fails now and then, in the ways networks do."""

import http.client
import random
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

KINDS = ("refused", "answer lost", "body broken")


class FaultyProxy:
    """Forwards requests; each fails with a given probability.

    "refused": 503, nothing reaches the server. "answer lost": the server did it, but the
    connection closes without a word. "body broken": the answer ends in its middle.
    """

    def __init__(self, upstream: str, *, probability: float, seed: int) -> None:
        self.faults: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._random = random.Random(seed)
        self._probability = probability
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, urlsplit(upstream)))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def draw(self) -> str | None:
        """Return how this request fails, if it does."""
        with self._lock:
            if self._random.random() >= self._probability:
                return None
            kind = self._random.choice(KINDS)
            self.faults[kind] += 1
            return kind

    def __enter__(self) -> "FaultyProxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(proxy: FaultyProxy, upstream) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self._read_body()
            fault = proxy.draw()
            if fault == "refused":
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            answer, content = self._forward(body)
            self.close_connection = fault is not None
            if fault == "answer lost":
                return
            cut = len(content) // 2 if fault == "body broken" and len(content) > 1 else len(content)
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in {"transfer-encoding", "content-length", "connection"}:
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else len(content)
            self.send_header("Content-Length", str(length or 0))
            self.end_headers()
            self.wfile.write(content[:cut])

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

        def _read_body(self) -> bytes:
            if "100-continue" in self.headers.get("Expect", ""):
                self.send_response_only(100)
                self.end_headers()
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
            return b"".join(chunks)

        def _forward(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
            connection = http.client.HTTPConnection(upstream.hostname, upstream.port, timeout=60)
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in {"expect", "transfer-encoding", "content-length"}:
                    connection.putheader(name, value)  # Host too: the signature covers it
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            return answer, content

        def log_message(self, *_: object) -> None:
            pass

    return Handler
