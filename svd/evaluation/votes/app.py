"""The web app that takes votes: one page, two calls, and the videos by their hash."""

from pathlib import Path
from typing import Annotated, Final, Literal

from fastapi import Cookie, FastAPI, HTTPException, Request, Response
from fastapi import Path as UrlPath
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, Field

from svd.evaluation.votes.access import Guard, Tokens
from svd.evaluation.votes.page import render_results, style
from svd.evaluation.votes.store import Ballot, Given, Refused, VoteStore
from svd.types.vote import SHA256, Study

RATER_COOKIE: Final = "svd_rater"
QUESTION_TEXT: Final = {
    "quality": "Which video looks better?",
    "following": "Which video follows what was asked for more closely?",
}
_YEAR_S: Final = 365 * 24 * 3600
_HERE: Final = Path(__file__).parent / "templates"
Side = Literal["left", "right", "tie"]
Rater = Annotated[str, Cookie(alias=RATER_COOKIE, max_length=64)]
Sha256 = Annotated[str, UrlPath(pattern=SHA256)]
_UNCHANGING: Final = {"Cache-Control": "private, max-age=31536000, immutable"}
_FRESH: Final = {"Cache-Control": "no-store"}


class SentVote(BaseModel):
    """What the page sends; anything else is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    ballot: str = Field(max_length=64)
    quality: Side
    following: Side | None
    watched_ms: int = Field(ge=0, le=86_400_000)
    replays: int = Field(ge=0, le=100_000)


def build_app(folder: Path, study: Study, store: VoteStore, tokens: Tokens | None) -> Guard:
    """Return the ASGI app of one study.

    Args:
        folder: Of the study; nothing outside its videos and pictures is served.
        study: What is asked.
        store: Where votes go.
        tokens: Who may come; None for a server on loopback.
    """
    app = FastAPI(title="svd vote", docs_url=None, redoc_url=None, openapi_url=None)
    _add_pages(app, folder, study, store)
    _add_calls(app, study, store)
    _add_media(app, folder, study)
    app.add_exception_handler(Refused, _refuse)
    return Guard(app, tokens)


def _refuse(_request: Request, err: Exception) -> Response:
    status = err.status if isinstance(err, Refused) else 500
    return JSONResponse({"detail": str(err)}, status, headers=_FRESH)


def _add_pages(app: FastAPI, folder: Path, study: Study, store: VoteStore) -> None:
    environment = Environment(
        loader=PackageLoader("svd.evaluation.votes"), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("vote.html.j2").render(study=study, questions=QUESTION_TEXT)
    script = (_HERE / "vote.js").read_text(encoding="utf-8")

    @app.get("/")
    def vote(svd_rater: Rater = "") -> HTMLResponse:
        answer = HTMLResponse(page, headers=_FRESH)
        if not store.knows(svd_rater):
            answer.set_cookie(
                RATER_COOKIE, store.join(), max_age=_YEAR_S, httponly=True, samesite="lax"
            )
        return answer

    @app.get("/vote.js")
    def vote_script() -> Response:
        return Response(script, media_type="text/javascript")

    @app.get("/style.css")
    def style_sheet() -> Response:
        return Response(style(), media_type="text/css")

    @app.get("/results")
    def results(request: Request) -> HTMLResponse:
        if request.scope["level"] != "owner":  # who knows the standing is no longer blind
            raise HTTPException(403, "results are for the study's owner")
        return HTMLResponse(render_results(folder, study, store.votes()), headers=_FRESH)


def _add_calls(app: FastAPI, study: Study, store: VoteStore) -> None:
    items = {item.item_id: item for item in study.items}

    def shown(ballot: Ballot | None, done: int, left: int) -> dict[str, object]:
        progress = {"done": done, "total": done + left}
        if ballot is None:
            return {"ballot": None, **progress}
        pair, item = ballot.pair, items[ballot.pair.item_id]
        videos = [f"videos/{sha256}.mp4" for sha256 in (pair.first_sha256, pair.second_sha256)]
        left_video, right_video = videos if ballot.first_is_left else reversed(videos)
        picture = item.picture_sha256
        return {
            "ballot": ballot.ballot,
            "left": left_video,
            "right": right_video,
            "prompt": item.prompt,
            "picture": None if picture is None else f"pictures/{picture}.png",
            "questions": ["quality", "following"] if item.asks else ["quality"],
            **progress,
        }

    @app.get("/api/ballot")
    def next_ballot(svd_rater: Rater = "") -> JSONResponse:
        ballot = store.next_ballot(svd_rater)
        return JSONResponse(shown(ballot, *store.progress(svd_rater)), headers=_FRESH)

    @app.post("/api/vote")
    def give(sent: SentVote, svd_rater: Rater = "") -> JSONResponse:
        given = Given(sent.quality, sent.following, sent.watched_ms, sent.replays)
        is_new = store.give(svd_rater, sent.ballot, given)
        return JSONResponse({"counted": is_new}, 201 if is_new else 200, headers=_FRESH)


def _add_media(app: FastAPI, folder: Path, study: Study) -> None:
    """Serve files whose hash the study names: no name from outside ever becomes a path."""
    videos = {sha for pair in study.pairs for sha in (pair.first_sha256, pair.second_sha256)}
    pictures = {item.picture_sha256 for item in study.items}

    @app.get("/videos/{sha256}.mp4")
    def video(sha256: Sha256) -> FileResponse:
        if sha256 not in videos:
            raise HTTPException(404)
        path = folder / "videos" / f"{sha256}.mp4"
        return FileResponse(path, media_type="video/mp4", headers=_UNCHANGING)

    @app.get("/pictures/{sha256}.png")
    def picture(sha256: Sha256) -> FileResponse:
        if sha256 not in pictures:
            raise HTTPException(404)
        path = folder / "pictures" / f"{sha256}.png"
        return FileResponse(path, media_type="image/png", headers=_UNCHANGING)
