"""The web process: one page, its events, its pictures, its buttons.

Everything shown comes from the verdict topic (and, on a demo, the plant's truth beside it). The
page is for people on this machine: it listens on loopback, answers to loopback names only, and
takes commands from its own origin only.
"""

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.middleware.trustedhost import TrustedHostMiddleware

from connectors.clock import SystemClock
from connectors.errors import HololineError, Poison, Transient
from connectors.line import Line
from connectors.messages import PayloadRef
from connectors.ports import Log, PayloadStore
from deploy.web.cards import Json
from deploy.web.feed import Feed
from deploy.web.render import picture, value_range

_FOLDER: Final = Path(__file__).parent
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_FOR_EVER: Final = {"Cache-Control": "private, max-age=31536000, immutable"}
_COMMAND: Final = re.compile(r"(?P<verb>unplug|plug)/(?P<station>[^/]+)|kill-scorer|kill-worker")
_COUNTERS: Final = (
    ("parts", "parts judged"),
    ("verdicts", "verdicts committed"),
    ("lost", "records or revisions lost"),
    ("duplicate", "verdicts committed twice"),
    ("conflicting", "verdicts that contradict an earlier one"),
    ("dead_letters", "records refused"),
)

Control = Callable[[str], Mapping[str, Any]]
"""Does one command (``unplug/<station>``, ``plug/<station>``, ``kill-scorer``, ``kill-worker``)."""


def make_app(
    *,
    line: Line,
    log: Log,
    store: PayloadStore,
    control: Control | None,
    banner: Json,
    registry: Path | None = None,
) -> FastAPI:
    """The application; its feed runs from start-up to shutdown.

    Args:
        line: The line to show.
        log: Where its topics are.
        store: Where the pictures are.
        control: What the buttons call, from a worker thread; None hides them. It may raise a
                `HololineError`, which is shown, as is what it answers.
        banner: ``title``, and ``servers``: name -> address, for people's own clients.
        registry: The folder of bundles: with it, features of captures that the line never saw are
            shown beside the hallucinated ones.
    """
    feed = Feed(line=line, log=log)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        feed.start()
        try:
            yield
        finally:
            feed.stop()

    app = FastAPI(title="Hololine", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(
        TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"], www_redirect=False
    )
    app.mount("/static", StaticFiles(directory=_FOLDER / "static"), name="static")

    @app.middleware("http")
    async def _with_headers(request: Request, call_next: Callable[..., Any]) -> Response:
        response: Response = await call_next(request)
        response.headers.update({k: v for k, v in _HEADERS.items() if k not in response.headers})
        return response

    app.add_exception_handler(Poison, _refused(422))
    app.add_exception_handler(Transient, _refused(503))
    shown = {"buttons": control is not None, "explains": registry is not None, "banner": banner}
    _add_page(app, feed, line=line, shown=shown)
    _add_pictures(app, feed, store=store)
    if registry is not None:
        _add_features(app, feed, line=line, store=store, registry=registry)
    _add_health(app, feed)
    if control is not None:
        _add_control(app, feed, line=line, control=control)
    return app


def serve(
    *,
    line: Line,
    log: Log,
    store: PayloadStore,
    control: Control | None,
    banner: Json,
    registry: Path | None,
    port: int,
) -> None:
    """The page is served on ``http://127.0.0.1:<port>`` until SIGINT or SIGTERM; see `make_app`."""
    app = make_app(
        line=line, log=log, store=store, control=control, banner=banner, registry=registry
    )
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
    )


def _add_page(app: FastAPI, feed: Feed, *, line: Line, shown: Json) -> None:
    templates = Jinja2Templates(directory=_FOLDER / "templates")
    inline = {"process", *line.inline_modalities()}
    stations = [
        {"name": name, "publishes": sorted(inline & set(spec.publishes))}
        for name, spec in line.stations.items()
        if inline & set(spec.publishes)
    ]

    @app.get("/", response_class=HTMLResponse)
    def page(request: Request) -> Response:
        facts = {"line": line, "stations": stations, **shown}
        return templates.TemplateResponse(request, "page.html", facts)

    @app.get("/events")
    async def events() -> EventSourceResponse:
        queue = feed.hub.subscribe()
        if queue is None:
            raise HTTPException(503, "too many pages are open")

        async def stream() -> AsyncIterator[ServerSentEvent]:
            try:
                yield ServerSentEvent(event="resync", data="{}")
                while True:
                    name, data = await queue.get()
                    yield ServerSentEvent(event=name, data=data)
            finally:
                feed.hub.unsubscribe(queue)

        return EventSourceResponse(stream(), ping=15)

    @app.get("/api/snapshot")
    def snapshot() -> Json:
        return feed.snapshot()

    @app.get("/api/parts")
    def parts() -> list[Json]:
        return feed.tiles()

    @app.get("/api/parts/{key:path}")
    def part(key: str) -> Json:
        found = feed.card(key)
        if found is None:
            raise HTTPException(404, f"{key!r} is not among the recent parts")
        return found


def _refused(status: int) -> Callable[[Request, Exception], JSONResponse]:
    def answer(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=status)

    return answer


def _add_pictures(app: FastAPI, feed: Feed, *, store: PayloadStore) -> None:
    def fetched(sha256: str) -> tuple[PayloadRef, bytes]:
        ref = feed.payload(sha256)
        if ref is None:
            raise HTTPException(404, "no recent part names this payload")
        return ref, store.get(ref)

    @app.get("/payload/{sha256}")
    def payload(sha256: str) -> Response:
        ref, data = fetched(sha256)
        pixels, media_type = picture(data, ref)
        return Response(pixels, media_type=media_type, headers=_FOR_EVER)

    @app.get("/payload/{sha256}/range")
    def payload_range(sha256: str) -> Json:
        ref, data = fetched(sha256)
        low, high = value_range(data, ref)
        return {"low": low, "high": high, "units": ref.units}


def _add_features(
    app: FastAPI, feed: Feed, *, line: Line, store: PayloadStore, registry: Path
) -> None:
    """Features of the plant's own captures, which the line may never have seen."""

    @lru_cache(maxsize=256)
    def png(digest: str, modality: str, ref: PayloadRef) -> bytes:
        from inference.preprocess import read_capture
        from inference.registry import BundleRegistry
        from inference.views import explain_features

        capture = read_capture(store.get(ref), ref=ref, modality=line.modalities[modality])
        return explain_features(BundleRegistry(registry).load(digest), modality, capture)

    @app.get("/features")
    def features(part: str, modality: str) -> Response:
        found = feed.model_and_capture(part, modality)
        if found is None:
            raise HTTPException(404, "the plant told nothing of this capture")
        digest, ref = found
        return Response(png(digest, modality, ref), media_type="image/png")


def _add_health(app: FastAPI, feed: Feed) -> None:
    @app.get("/livez")
    def livez() -> Response:
        return PlainTextResponse("ok" if feed.alive() else "dead", 200 if feed.alive() else 503)

    @app.get("/readyz")
    def readyz() -> Response:
        ready = feed.ready()
        return PlainTextResponse("ok" if ready else "no verdict topic", 200 if ready else 503)

    @app.get("/metrics")
    def metrics() -> Response:
        now = feed.snapshot()
        lines = []
        for name, meaning in _COUNTERS:
            lines += [f"# HELP hololine_{name} {meaning}", f"# TYPE hololine_{name} gauge"]
            lines += [f"hololine_{name} {now.get(name, 0)}"]
        return PlainTextResponse("\n".join(lines) + "\n")


def _add_control(app: FastAPI, feed: Feed, *, line: Line, control: Control) -> None:
    @app.post("/api/control/{command:path}")
    def press(command: str, request: Request) -> Response:
        if request.headers.get("origin") != f"{request.url.scheme}://{request.url.netloc}":
            raise HTTPException(403, "commands are taken from this page only")
        known = _COMMAND.fullmatch(command)
        if known is None or (known["station"] or next(iter(line.stations))) not in line.stations:
            raise HTTPException(404, f"no such command: {command!r}")
        action: Json = {"command": command, "at_ms": SystemClock().now_ns() // 1_000_000}
        try:
            answer = control(command)
        except HololineError as error:
            feed.note({**action, "ok": False, "message": str(error)})
            return JSONResponse({"error": str(error)}, 503 if isinstance(error, Transient) else 409)
        station = known["station"]
        feed.note(
            {**action, "ok": True, "message": _words(answer)},
            unplugged=station if known["verb"] == "unplug" else None,
            plugged=station if known["verb"] == "plug" else None,
        )
        return JSONResponse(dict(answer))


def _words(answer: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in answer.items())
