"""Small studies with videos that are really encoded, and a server that really listens."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import uvicorn

from svd.evaluation.votes.access import Tokens, listen
from svd.evaluation.votes.app import build_app
from svd.evaluation.votes.store import VoteStore
from svd.evaluation.votes.study import Entry, StudyOptions, create_study
from svd.media.encode import write_video
from svd.types.vote import Study


def write_samples(
    folder: Path, items: list[str], *, noise: float, fps: int = 8, t: int = 8
) -> Path:
    """Moving bars under noise; more noise is worse."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(int(noise * 100) + 7)
    for index, item in enumerate(items):
        x = np.arange(64)
        frames = np.stack(
            [np.tile(127 + 90 * np.sin((x + 2 * f + 5 * index) / 4), (32, 1)) for f in range(t)]
        )
        noisy = frames[..., None].repeat(3, -1) + generator.normal(0, noise, (t, 32, 64, 3))
        write_video(
            folder / f"{item}.mp4", noisy.clip(0, 255).astype(np.uint8), fps, preset="ultrafast"
        )
    return folder


def make_study(
    root: Path,
    *,
    num_items: int,
    options: StudyOptions,
    noises: tuple[float, ...] = (2.0, 40.0),
    prompts: dict[str, str] | None = None,
) -> Study:
    items = [f"clip-{index:03d}" for index in range(num_items)]
    entries = [
        Entry(f"model-{place}", write_samples(root / f"m{place}", items, noise=noise))
        for place, noise in enumerate(noises)
    ]
    asked = {item: f"bars that move, take {item}" for item in items} if prompts is None else prompts
    return create_study(entries, root / "study", options, prompts=asked)


@contextmanager
def serving(folder: Path, study: Study, tokens: Tokens | None = None) -> Iterator[str]:
    """Serve a study on loopback; yield its URL."""
    listener = listen("127.0.0.1", 0)
    app = build_app(folder, study, VoteStore(folder, study), tokens)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()
