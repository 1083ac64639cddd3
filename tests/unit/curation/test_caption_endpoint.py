"""A merger behind HTTP: a real server on loopback that answers, fails, stalls or babbles."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from svd.config.annotation_models import MergeCaptionConfig
from svd.curation.annotate.caption_merge import EndpointMerger, NoAnswer, merge_prompt
from svd.errors import ConfigError
from svd.runtime import endpoint

Answer = tuple[int, bytes]


class Server:
    """Answers chat completions; `answers` says how, and `asked` what was asked."""

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.keys: list[str | None] = []
        self.paths: list[str] = []
        self.answer: Callable[[dict], Answer] = lambda body: completion("done")
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(body)
                outer.keys.append(self.headers["Authorization"])
                outer.paths.append(self.path)
                status, data = outer.answer(body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/v1"


def completion(text: str) -> Answer:
    return 200, json.dumps({"choices": [{"message": {"content": text}}]}).encode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(endpoint, "_FIRST_WAIT_S", 0.01)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def merger(server: Server, **changes: object) -> EndpointMerger:
    values = {"kind": "openai", "model": "small", "endpoint": server.url, "timeout_s": 5.0}
    return EndpointMerger(MergeCaptionConfig(**(values | changes)))


def test_the_endpoint_gets_both_captions_and_gives_one(server: Server) -> None:
    server.answer = lambda body: completion("A dog\n  runs over grass. ")
    prompt = merge_prompt("a dog on grass", "something runs")
    assert merger(server).complete([prompt, prompt]) == ["A dog runs over grass."] * 2
    assert server.paths == ["/v1/chat/completions"] * 2
    body = server.asked[0]
    assert (body["model"], body["temperature"], body["seed"]) == ("small", 0, 0)
    said = body["messages"][0]["content"]
    assert "First: a dog on grass" in said
    assert "Second: something runs" in said
    assert server.keys == [None, None]


def test_failures_that_pass_are_asked_again(server: Server) -> None:
    states = iter([503, 429])
    server.answer = lambda body: next(((state, b"busy") for state in states), completion("ok"))
    assert merger(server).complete(["x"]) == ["ok"]
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("answer", "reason", "num_asked"),
    [
        ((500, b""), "HTTP 500", 3),
        ((404, b"no such model"), "HTTP 404", 1),
        ((200, b"<html>"), "no JSON", 1),
        ((200, b'{"choices": []}'), "without a completion", 1),
        (completion("  "), "said nothing", 1),
    ],
    ids=["broken", "unknown", "not-json", "empty", "silent"],
)
def test_a_failure_costs_one_caption_and_has_a_reason(
    server: Server, answer: Answer, reason: str, num_asked: int
) -> None:
    server.answer = lambda body: completion("fine") if "good" in str(body) else answer
    bad, good = merger(server).complete(["bad", "good"])
    assert isinstance(bad, NoAnswer)
    assert reason in bad.reason
    assert good == "fine"
    assert len(server.asked) == num_asked + 1


def test_a_stalled_endpoint_does_not_hang_the_stage(server: Server) -> None:
    def stall(body: dict) -> Answer:
        time.sleep(1.0)
        return completion("late")

    server.answer = stall
    answer = merger(server, timeout_s=0.2, max_attempts=1).complete(["x"])[0]
    assert isinstance(answer, NoAnswer)
    assert "timed out" in answer.reason


def test_nobody_listening_is_a_reason(server: Server) -> None:
    silent = merger(server, endpoint="http://127.0.0.1:9/v1", max_attempts=2)
    answer = silent.complete(["x"])[0]
    assert isinstance(answer, NoAnswer)
    assert "attempt 2" in answer.reason


def test_the_key_comes_from_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MERGER_KEY", "secret")
    asking = merger(server, api_key_variable="MERGER_KEY")
    assert asking.complete(["x"]) == ["done"]
    assert server.keys == ["Bearer secret"]
    assert "secret" not in asking.scorer.model_dump_json()
    monkeypatch.delenv("MERGER_KEY")
    with pytest.raises(ConfigError, match="MERGER_KEY is not set"):
        asking.complete(["x"])


def test_only_http_addresses_are_asked(server: Server) -> None:
    with pytest.raises(ConfigError, match="no http"):
        merger(server, endpoint="file:///etc").complete(["x"])
