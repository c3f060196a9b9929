"""The server of `curate view`: a page, its questions as JSON, clips and pictures. Its only writing is marks."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from curate import __version__
from curate.config import Config, parse_config
from curate.errors import ConfigError, CurateError, InputError, StorageError, UsageError
from curate.inspection import find_clip
from curate.marks import Verdict
from curate.redaction import redacted
from curate.tables import BOOKKEEPING
from curate.viewer.films import MOST_PLAYED_S, Films, Kind
from curate.viewer.guard import Guard
from curate.viewer.library import Library
from curate.viewer.query import MOST_CLIPS, Ask

_PAGE = Path(__file__).parent / "page"
_SHARED = Path(__file__).parents[1] / "report" / "page"
ASSETS = {
    "icon.svg": (_PAGE, "image/svg+xml"),
    "view.css": (_PAGE, "text/css"),
    **dict.fromkeys(("style.css", "tables.css", "clips.css"), (_SHARED, "text/css")),
    "dom.js": (_SHARED, "text/javascript"),
    "api.js": (_PAGE, "text/javascript"),
    "filters.js": (_PAGE, "text/javascript"),
    "clips.js": (_PAGE, "text/javascript"),
    "detail.js": (_PAGE, "text/javascript"),
    "main.js": (_PAGE, "text/javascript"),
}
"""All files that are served, with where they lie: no path of a request is ever opened."""

MOST_BODY_BYTES = 64 << 10
_GONE_AWAY = 499
_MOST_LISTED = 24
"""Entries of a list that are shown."""


class MarkRequest(Config):
    """What the page says to mark clips; ``verdict`` null takes marks back."""

    clips: tuple[str, ...]
    verdict: Verdict | None
    note: str = ""


def make_app(library: Library, films: Films, guard: Mapping[str, Any], *, by: str = "") -> Starlette:
    """The application. ``guard`` holds the arguments of `Guard`, ``by`` is who marks."""
    view = _View(library, films, by)
    routes = [
        Route("/", view.page),
        Route("/assets/{name}", view.asset),
        Route("/api/facts", view.facts),
        Route("/api/clips", view.clips),
        Route("/api/values", view.values),
        Route("/api/clips/{clip_id}", view.clip),
        Route("/api/marks", view.mark, methods=["POST"]),
        Route("/clips/{clip_id}.{kind}", view.film),
    ]
    handlers: dict[Any, Callable[..., Any]] = {CurateError: _told}
    return Starlette(routes=routes, middleware=[Middleware(Guard, **guard)], exception_handlers=handlers)


class _View:
    """The answers. Those that ask tables or decode run in threads."""

    def __init__(self, library: Library, films: Films, by: str) -> None:
        self._library = library
        self._films = films
        self._by = by
        # Who waits for a clip to be made takes no thread: the page's questions are answered meanwhile.
        self._turns = {"mp4": asyncio.Lock(), "webp": asyncio.Lock()}
        self._files = {name: (folder / name).read_bytes() for name, (folder, _) in ASSETS.items()}
        self._html = (_PAGE / "view.html").read_bytes()

    def page(self, _: Request) -> Response:
        return Response(self._html, media_type="text/html", headers={"cache-control": "no-cache"})

    def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._files:
            return JSONResponse({"error": "there is no such file"}, 404)
        return Response(self._files[name], media_type=ASSETS[name][1], headers={"cache-control": "no-cache"})

    def facts(self, _: Request) -> Response:
        """What the page has to know of the corpus; looks for new selections."""
        library = self._library
        library.refresh()
        manifest = library.tables.manifest
        return _json(
            {
                "corpus": redacted(library.corpus.uri),
                "run_id": library.run_id,
                "recipe": manifest.get("recipe", ""),
                "tool_version": __version__,
                "totals": library.totals(),
                "columns": [asdict(column) for column in library.columns.values()],
                "selections": library.selections,
                "stand_ins": manifest.get("stand_ins", {}),
                "lacks": manifest.get("lacks", {}),
                "most_clips": MOST_CLIPS,
                "most_played_s": MOST_PLAYED_S,
            }
        )

    def clips(self, request: Request) -> Response:
        ask = parse_config(Ask, _parsed(request.query_params.get("q", "{}")), "q")
        found = self._library.find(ask)
        clips = [{**clip, "uri": redacted(clip["uri"])} for clip in found.clips]
        return _json({"n": found.n, "hours": found.hours, "offset": ask.offset, "clips": clips})

    def values(self, request: Request) -> Response:
        return _json(self._library.values(request.query_params.get("column", "")))

    def clip(self, request: Request) -> Response:
        """One clip with all its cells, and where it stands in its source."""
        library, clip_id = self._library, request.path_params["clip_id"]
        clip, source = library.clip(clip_id)
        record = find_clip(library.corpus, clip.clip_id, library.run_id)
        selection = request.query_params.get("selection", "")
        facts = source.facts
        return _json(
            {
                "clip": clip.to_row(),
                "uris": [redacted(uri) for uri in record.uris],
                "source": {
                    "start_s": float(facts.start_pts * facts.time_base_fraction),
                    "end_s": float(facts.end_pts * facts.time_base_fraction),
                    **{
                        name: getattr(facts, name)
                        for name in ("width_px", "height_px", "rate_fps", "codec", "container")
                    },
                },
                "mark": asdict(record.mark) if record.mark else None,
                "verdicts": record.verdicts,
                "cells": [_cell(name, cell) for name, cell in record.cells.items()],
                "timeline": library.timeline(clip.clip_id, selection),
            }
        )

    async def mark(self, request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BODY_BYTES:
                return JSONResponse({"error": "that is too much at once"}, 413)
        asked = parse_config(MarkRequest, _parsed(body.decode("utf-8", "replace")), "marks")
        if not 1 <= len(asked.clips) <= MOST_CLIPS:
            raise ConfigError(f"mark 1 to {MOST_CLIPS} clips at once", subject="clips")
        done = await run_in_threadpool(self._library.mark, asked.clips, asked.verdict, asked.note, self._by)
        return _json({"changed": done, "by": self._by, "totals": await run_in_threadpool(self._library.totals)})

    async def film(self, request: Request) -> Response:
        kind = request.path_params["kind"]
        if kind not in {"mp4", "webp"}:
            return JSONResponse({"error": "clips are mp4, pictures webp"}, 404)
        clip_id = request.path_params["clip_id"]
        if self._films.has(clip_id, kind):
            return await self._made(clip_id, kind)
        async with self._turns[kind]:
            await request.body()  # only behind it can be seen that nobody waits any more
            if await request.is_disconnected():
                return Response(status_code=_GONE_AWAY)
            return await self._made(clip_id, kind)

    async def _made(self, clip_id: str, kind: Kind) -> Response:
        held = ExitStack()
        path = await run_in_threadpool(held.enter_context, self._films.file(clip_id, kind))
        return _Held(held, path, kind)


class _Held(FileResponse):
    """A file that stays where it is until it is sent."""

    def __init__(self, held: ExitStack, path: Path, kind: Kind) -> None:
        media_type = {"mp4": "video/mp4", "webp": "image/webp"}[kind]
        super().__init__(path, media_type=media_type, headers={"cache-control": "private, max-age=60"})
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await super().__call__(scope, receive, send)


def _told(_: Request, error: CurateError) -> Response:
    """An error of ours as JSON: the page shows its text."""
    status = {ConfigError: 400, UsageError: 404, StorageError: 410, InputError: 422}
    found = next((code for kind, code in status.items() if isinstance(error, kind)), 500)
    found = 503 if error.transient else found
    lost = isinstance(error, StorageError | InputError)  # what to do then is written for runs
    text = f"{error.subject}: {error.message}" if lost else str(error)
    return JSONResponse({"error": redacted(" ".join(text.split()))}, found)


def _parsed(text: str) -> Mapping[str, Any]:
    """JSON from outside: an object, of text that is text. ConfigError."""
    try:
        data = json.loads(text)
        again = json.dumps(data, ensure_ascii=False, allow_nan=False)
        again.encode()
    except (ValueError, RecursionError) as error:
        raise ConfigError("is no JSON", subject=text[:80]) from error
    if not isinstance(data, dict) or "\\u0000" in again:
        raise ConfigError("is no question", subject=text[:80])
    return data


def _json(data: Any) -> JSONResponse:
    return JSONResponse(_plain(data), headers={"cache-control": "no-store"})


def _plain(value: Any) -> Any:
    """Values of tables as JSON has them: what it lacks, and what a browser would round, as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, str) or value is None or isinstance(value, bool):
        return value
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_plain(each) for each in value]
    if isinstance(value, int):
        return value if abs(value) < 1 << 53 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)


def _cell(stage: str, cell: Mapping[str, Any]) -> dict[str, Any]:
    """A cell for people: values by column, long lists cut off, secrets of messages blotted out."""
    values: dict[str, Any] = {}
    about = {*BOOKKEEPING, "key", "outcome", "error_class", "error_message"}
    for name, value in cell.items():
        if name not in about and value is not None:
            is_long = isinstance(value, list) and len(value) > _MOST_LISTED
            values[name] = {"first": value[:_MOST_LISTED], "n": len(value)} if is_long else value
    told = {name: redacted(cell.get(name) or "") for name in ("error_class", "error_message")}
    return {"stage": stage, "outcome": cell["outcome"], "seconds": cell.get("seconds"), **told, "values": values}
