"""Serves the labelling page, on this machine alone.

Who may ask is decided as on the page of a station (`pages.access`), with a token always.
"""

import asyncio
import contextlib
import gc
import json
import mimetypes
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec
from sse_starlette import ServerSentEvent
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Route
from starlette.types import ASGIApp

from data_prep.label.boxes import Box
from data_prep.label.models import TrainingOptions
from data_prep.label.project import Conflict, Project, Recording
from data_prep.label.store import OWN, State
from stormpsr_jax.base import files
from stormpsr_jax.base.errors import message_of, one_line, tell
from stormpsr_jax.pages import web
from stormpsr_jax.pages.access import HEADERS, POLICY, Access
from stormpsr_jax.report import pages

_SHARE = re.compile(r"(\d{1,3})%")
_LONGEST = 2**20  # bytes of a line


class CommandRunner:
    """Commands that run one after the other, nicer than the page."""

    def __init__(self) -> None:
        self.state = "idle"  # or "running", "failed", "done"
        self.line = ""  # the last one that they have printed
        self.share: float | None = None  # of what the line counts, in 0…1
        self._process: asyncio.subprocess.Process | None = None
        self._stopped = False

    async def run(self, commands: Sequence[Sequence[str]]) -> bool:
        """Runs `python -m` each of them, until one fails; returns whether none has."""
        self.state, self._stopped = "running", False
        path = os.pathsep.join(word or os.getcwd() for word in sys.path)
        status = 0
        for command in commands:
            self._process = await asyncio.create_subprocess_exec(
                *("nice", "-n", "10", sys.executable, "-P", "-m", *command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": path},
                limit=_LONGEST,
                start_new_session=True,  # what it has started ends with it
            )
            assert self._process.stdout is not None
            async for line in self._process.stdout:
                if text := one_line(line.decode(errors="replace")):
                    self.line = text
                    found = _SHARE.search(text)
                    self.share = min(int(found[1]) / 100, 1.0) if found else None
            status = await self._process.wait()
            if status:
                break
        self.state = "idle" if self._stopped else "failed" if status else "done"
        self.share = None
        return not status

    def stop(self) -> None:
        """Ends them as Ctrl-C does; the second time at once."""
        if self._process is not None and self._process.returncode is None:
            how = signal.SIGKILL if self._stopped else signal.SIGINT
            self._stopped = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, how)


_STATIC = Path(__file__).with_name("static")
_HEADERS = {**HEADERS, "Content-Security-Policy": f"{POLICY}; media-src 'self'"}
# As browsers play them, whatever they call them.
_MEDIA = {".mov": "video/mp4", ".m4v": "video/mp4", ".mkv": "video/webm"}
_MAX_BODY = 2**24  # bytes
_MAX_WIDTH = 2**14
_WATCH = 1.0  # seconds between two looks at the folder
_BEAT = 15  # seconds


class _Step(msgspec.Struct):
    frame: int
    step_id: int


class _PutLabels(msgspec.Struct, forbid_unknown_fields=True):
    revision: str
    labels: list[_Step]
    done: bool = False
    answered: list[_Step] = []


class _PutBoxes(msgspec.Struct, forbid_unknown_fields=True):
    revision: str
    boxes: list[Box]


class Server:
    """Answers the page."""

    def __init__(self, project: Project, access: Access):
        self._project, self._access = project, access
        self._watchers: set[asyncio.Queue[str]] = set()
        self._saving = asyncio.Lock()
        self._first: Recording | None = None  # whose index is wanted
        self._shown: Recording | None = None  # whose pictures are
        self._training, self._proposing = CommandRunner(), CommandRunner()
        self._tasks: set[asyncio.Task[None]] = set()
        self.app = self._app()

    async def run(self, listening: socket.socket) -> None:
        """Serves until a signal comes."""
        gc.freeze()  # `frames` collects what is made from now on, often
        self._start(self._build())
        self._start(self._watch())
        try:
            await web.server(self.app).serve([listening])
        finally:
            for running in (self._training, self._proposing):
                running.stop()
            for task in self._tasks:
                task.cancel()

    # --- Behind the page --------------------------------------------------------------------------

    async def _build(self) -> None:
        """Builds the indices, one after the other; first that of which somebody has asked."""
        waiting = list(self._project.recordings.values())
        while waiting:
            recording = self._first if self._first in waiting else waiting[0]
            assert recording is not None
            waiting.remove(recording)
            await asyncio.to_thread(recording.build, self._project.procedure.fps)
            self.tell(recording.name)
        await self._propose()

    async def _watch(self) -> None:
        """Tells which files have changed."""
        folder = self._project.labels.store.folder
        before = _stamps(folder)
        while True:
            await asyncio.sleep(_WATCH)
            now = await asyncio.to_thread(_stamps, folder)
            changed = {path for path, _ in before.items() ^ now.items()}
            before = now
            for path in changed:
                for name in {path.stem, path.parent.name} & self._project.recordings.keys():
                    labels = self._project.labels
                    of_labels = path in labels.files_of(name)
                    self.tell(name, labels.revision(name) if of_labels else None)

    async def _train(self, commands: Sequence[Sequence[str]], workdir: Path) -> None:
        done = await self._training.run(commands)
        self.tell(None)
        if done:
            self._project.proposals.use(str(workdir))
            await self._propose()

    async def _propose(self) -> None:
        async with self._saving:
            command = await asyncio.to_thread(self._project.recognising)
        if command is not None:
            self._proposing.stop()
            self._proposing = CommandRunner()
            await self._proposing.run([command])
            if self._proposing.state == "failed":
                tell("warning", f"--model: {self._proposing.line}")

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def tell(self, name: str | None, revision: str | None = None) -> None:
        """Tells all tabs that something of a recording has changed, or of the list (None)."""
        news = {"video": name} if revision is None else {"video": name, "revision": revision}
        for watcher in self._watchers:
            watcher.put_nowait(json.dumps(news))

    # --- Requests ---------------------------------------------------------------------------------

    def _app(self) -> ASGIApp:
        routes = [
            Route("/", self._get_page),
            Route("/static/{file}", self._get_static),
            Route("/media/{name}", self._get_media),
            Route("/api/project", self._get_project),
            Route("/api/changes", self._get_changes),
            Route("/api/parts/{part:int}.jpg", self._get_part),
            Route("/api/videos/{name}", self._get_video),
            Route("/api/videos/{name}/frames/{frame:int}.jpg", self._get_frame),
            Route("/api/videos/{name}/labels", self._put_labels, methods=["PUT"]),
            Route("/api/videos/{name}/boxes", self._put_boxes, methods=["PUT"]),
            Route("/api/train", self._get_train),
            Route("/api/train", self._post_train, methods=["POST"]),
            Route("/api/train/plan", self._post_plan, methods=["POST"]),
            Route("/api/train/stop", self._post_stop, methods=["POST"]),
        ]
        failures = dict.fromkeys((HTTPException, ValueError, OSError), _failure)
        app = Starlette(routes=routes, exception_handlers=failures)
        app.router.redirect_slashes = False
        return web.guarded(app, self._access, self._entrance, headers=_HEADERS)

    def _entrance(self, request: Request) -> Response:
        """The answer to who has no cookie: with the token in the address, they get one."""
        query = dict(request.query_params)
        if not (request.url.path == "/" and self._access.is_token(query.pop("token", ""))):
            what = "needs the token: open the address that `stormpsr label` has printed"
            return PlainTextResponse(f"{what}\n", 401)
        rest = urllib.parse.urlencode(query)
        return web.let_in(RedirectResponse(f"./?{rest}" if rest else "./", 303), self._access)

    def _recording(self, request: Request) -> Recording:
        name = request.path_params["name"]
        if name not in self._project.recordings:
            raise HTTPException(404, f"{files.shorten(name)}: no such video")
        return self._project.recordings[name]

    async def _get_page(self, request: Request) -> Response:
        if "token" in request.query_params:  # which no address that is shown should have
            return self._entrance(request)
        return FileResponse(_STATIC / "index.html")

    async def _get_static(self, request: Request) -> Response:
        name = request.path_params["file"]
        if name == "style.css":
            return Response(pages.template(name).render(), media_type="text/css")
        if not (_STATIC / name).is_file():
            raise HTTPException(404, "no such file")
        return FileResponse(_STATIC / name)

    async def _get_media(self, request: Request) -> Response:
        path = self._recording(request).place
        kind = _MEDIA.get(path.suffix.lower()) or mimetypes.guess_type(path.name)[0]
        return FileResponse(path, media_type=kind or "application/octet-stream")

    async def _get_project(self, request: Request) -> Response:
        async with self._saving:
            return JSONResponse(await asyncio.to_thread(self._project.overview))

    async def _get_part(self, request: Request) -> Response:
        jpeg = dict(enumerate(self._project.proposals.parts)).get(request.path_params["part"])
        if jpeg is None:
            raise HTTPException(404, "no such picture")
        return Response(jpeg, media_type="image/jpeg")

    async def _get_video(self, request: Request) -> Response:
        recording = self._first = self._recording(request)
        async with self._saving:
            return JSONResponse(await asyncio.to_thread(self._project.video, recording))

    async def _get_frame(self, request: Request) -> Response:
        recording, frame = self._recording(request), request.path_params["frame"]
        width = request.query_params.get("width", str(_MAX_WIDTH))
        if not (width.isascii() and width.isdecimal() and 1 <= int(width[:9]) <= _MAX_WIDTH):
            raise ValueError(f"width: {files.shorten(width)} is not in 1…{_MAX_WIDTH}")
        if (other := self._shown) not in (None, recording):
            async with other.lock:
                if other.video is not None:
                    other.video.close()  # only one keeps pictures
        self._shown = recording
        async with recording.lock:
            if await request.is_disconnected():  # who has gone on to another frame meanwhile
                return Response(status_code=204)
            jpeg = await asyncio.to_thread(recording.jpeg, frame, int(width))
        return Response(jpeg, media_type="image/jpeg")

    async def _put_labels(self, request: Request) -> Response:
        recording, asked = self._recording(request), await _body(request, _PutLabels)
        steps = [msgspec.structs.astuple(step) for step in asked.labels]
        state = State(asked.done, tuple(map(msgspec.structs.astuple, asked.answered)))
        return await self._put(recording, self._project.write, asked.revision, steps, state)

    async def _put_boxes(self, request: Request) -> Response:
        recording, asked = self._recording(request), await _body(request, _PutBoxes)
        return await self._put(recording, self._project.write_boxes, asked.revision, asked.boxes)

    async def _put(
        self, recording: Recording, write: Callable[..., dict[str, Any]], *given: Any
    ) -> Response:
        async with self._saving:
            try:
                answer = await asyncio.to_thread(write, recording, *given)
            except Conflict as changed:
                return JSONResponse({"error": str(changed), **changed.now}, 409)
        self.tell(recording.name, answer["revision"])
        return JSONResponse(answer)

    async def _post_train(self, request: Request) -> Response:
        wanted = await _body(request, TrainingOptions)
        async with self._saving:
            plan, commands, workdir = await asyncio.to_thread(self._project.plan, wanted)
        if plan["replaces"] and not wanted.replace:
            return JSONResponse({"error": "agree first to what is replaced"}, 409)
        if self._training.state == "running":
            return JSONResponse({"error": "is running already"}, 409)
        self._training.state = "running"  # before another request has its turn
        self._start(self._train(commands, workdir))
        return JSONResponse({}, 202)

    async def _post_plan(self, request: Request) -> Response:
        wanted = await _body(request, TrainingOptions)
        async with self._saving:
            plan, *_ = await asyncio.to_thread(self._project.plan, wanted)
        return JSONResponse(plan)

    async def _get_train(self, request: Request) -> Response:
        running = self._training
        shown = {"state": running.state, "line": running.line, "share": running.share}
        return JSONResponse(shown)

    async def _post_stop(self, request: Request) -> Response:
        self._training.stop()
        return JSONResponse({}, 202)

    async def _get_changes(self, request: Request) -> Response:
        return web.events(self._changes(), _BEAT)

    async def _changes(self) -> AsyncIterator[ServerSentEvent]:
        news: asyncio.Queue[str] = asyncio.Queue()
        self._watchers.add(news)
        try:
            while True:
                yield web.event(await news.get())
        finally:
            self._watchers.discard(news)


async def _failure(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code)
    return JSONResponse({"error": message_of(error)}, 500 if isinstance(error, OSError) else 422)


async def _body(request: Request, kind: type[Any]) -> Any:
    body = await web.body(request, _MAX_BODY)
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"request: {error}") from error


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """When each file of a folder was changed, and its size; of the page's own, the proposals."""
    stamps = {}
    for place, folders, names in os.walk(folder):
        if Path(place).name == OWN:
            folders[:], names = [name for name in folders if name == "proposals"], []
        for name in names:
            with contextlib.suppress(OSError):  # it is gone, or a link to nothing
                status = os.stat(path := Path(place, name))
                stamps[path] = status.st_mtime_ns, status.st_size
    return stamps
