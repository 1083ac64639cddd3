"""As much of a W&B server as a run needs to start and to log an artifact; it fails when told to."""

import json
import re
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
_VIEWER = {
    "id": "u", "username": "me", "entity": "me", "email": "", "flags": "{}",
    "teams": {"edges": []}, "apiKeys": {"edges": []},
}  # fmt: skip
_SEQUENCE = {
    "__typename": "ArtifactSequence", "id": "s", "name": "svd-i2v",
    "latestArtifact": None, "project": {**_PROJECT, "internalId": "1"},
}  # fmt: skip
_ARTIFACT = {
    "__typename": "Artifact", "id": "a", "artifactSequence": _SEQUENCE, "versionIndex": 0,
    "artifactType": {"name": "model"}, "description": None, "metadata": "{}",
    "ttlDurationSeconds": -2, "ttlIsInherited": True, "tags": [], "historyStep": None,
    "state": "COMMITTED", "size": 1, "digest": "d", "commitHash": "c", "fileCount": 1,
    "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z", "aliases": [],
}  # fmt: skip
_ANSWERS: dict[str | None, Any] = {
    "RunResumeStatus": {"model": None},
    "UpsertBucket": {"upsertBucket": {"bucket": _BUCKET, "inserted": True}},
    "Viewer": {"viewer": _VIEWER},
    "CreateRunFiles": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}},
    "ServerFeaturesQuery": {"serverInfo": {"features": []}},
    "ArtifactType": {"project": {"artifact": None}},
    "CreateArtifact": {
        "createArtifact": {"artifact": {**_ARTIFACT, "state": "PENDING"}},
    },
    "CommitArtifact": {"commitArtifact": {"artifact": _ARTIFACT}},
    "ArtifactByID": {"artifact": _ARTIFACT},
    "FetchOrgInfoFromEntity": {
        "entity": {"organization": {"name": "o", "orgEntity": {"name": "o"}}, "user": None}
    },
    "LinkArtifact": {"result": {"versionIndex": 0, "artifactMembership": None}},
}
_QUERY = re.compile(r"(?:query|mutation)\s+(\w+)")


class WandbStub:
    """Answers what starts a run; from `is_failing` on, every request gets a 500."""

    def __init__(self) -> None:
        self.is_failing = False
        self.num_failed = 0
        self.asked: list[tuple[str, dict[str, Any]]] = []  # operation, variables
        self.uploaded: list[dict[str, Any]] = []  # manifests of artifacts
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


_UPLOAD = "/upload"


def _manifest(url: str) -> dict[str, Any]:
    name = "wandb_manifest.json"
    place = {"uploadUrl": f"{url}{_UPLOAD}", "uploadHeaders": [], "artifact": {"id": "a"}}
    file = {"id": "f", "name": name, "displayName": name, **place}
    return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}


def _handler(stub: WandbStub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if stub.is_failing:
                stub.num_failed += 1
                self._send(500, {})
            elif self.path == "/graphql":
                question = json.loads(body)
                named = _QUERY.search(question["query"])
                operation = named[1] if named else ""
                stub.asked.append((operation, question.get("variables") or {}))
                answers = {**_ANSWERS, "CreateArtifactManifest": _manifest(stub.url)}
                self._send(200, {"data": answers.get(operation, {})})
            elif self.path == _UPLOAD:
                stub.uploaded.append(json.loads(body))
                self._send(200, {})
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
