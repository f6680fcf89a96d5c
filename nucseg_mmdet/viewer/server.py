"""The server of the page: for one user, on this machine, of the given results only.

No address holds a path: slides are numbers, the page's own files are listed in ``PAGE``. Who has
not been told the token in the address is sent away, and so is a page of another site that had its
name point to this machine (the ``Host`` header is not ours then).
"""

import asyncio
import contextlib
import json
import secrets
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nucseg_mmdet.slides.base import Slide
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.errors import describe as describe_error
from nucseg_mmdet.viewer import images
from nucseg_mmdet.viewer.index import Filter, parse_hidden
from nucseg_mmdet.viewer.site import Site

HTML, CSS, SCRIPT = 'text/html', 'text/css', 'text/javascript'
PARTS = ['main', 'address', 'keys', 'message', 'moves', 'panel', 'rulers', 'image', 'drawing']
PARTS += ['nuclei', 'density', 'tiles', 'colors', 'painter', 'painting', 'api']
# The page's files by their names in addresses: package, place in it, type.
PAGE = {
    '': ('nucseg_mmdet.viewer', 'static/index.html', HTML),
    'view.css': ('nucseg_mmdet.viewer', 'static/view.css', CSS),
    'openseadragon.js': (
        'nucseg_mmdet.viewer',
        'static/openseadragon/openseadragon.min.js',
        SCRIPT,
    ),
    'look.css': ('nucseg_mmdet.imaging', 'page/look.css', CSS),
    'draw.js': ('nucseg_mmdet.imaging', 'page/draw.js', SCRIPT),
    **{f'{name}.js': ('nucseg_mmdet.viewer', f'static/{name}.js', SCRIPT) for name in PARTS},
}
NO_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"  # index.html has an empty one
HEADERS = {
    'Content-Security-Policy': (
        f"default-src 'none'; script-src 'self'; style-src 'self' {NO_STYLE}; connect-src 'self'; "
        "worker-src 'self'; img-src 'self' blob: data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',  # the address has the token
    'X-Content-Type-Options': 'nosniff',
}
PATIENCE = 0.5  # s until the page is told how far the making of an index is
GONE = 499  # status for a client that has left; nobody reads it


class Json(JSONResponse):
    """JSON in ASCII: names of files need be no text in any other coding."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(',', ':')).encode()


def make_app(
    site: Site, token: str, hosts: Sequence[str], started: Callable[[], None] = lambda: None
) -> ASGIApp:
    """Make the application.

    Args:
        site: what it shows.
        token: the first part of every path.
        hosts: values of the ``Host`` header that are answered.
        started: called when the server is about to answer; from then on Ctrl-C ends it.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        started()
        yield

    def bind(handler: Callable[[Site, Request], Awaitable[Response]]) -> Any:
        async def endpoint(request: Request) -> Response:
            try:
                return await handler(site, request)
            except Exception as error:
                return _say_error(error)

        return endpoint

    slide = '/slides/{number:int}'
    tile = '{level:int}/{x:int}_{y:int}'
    routes = [
        Route('/', page),
        Route('/slides.json', bind(list_slides)),
        Route(f'{slide}/info', bind(describe)),
        Route(f'{slide}/image/{tile}.jpg', bind(image)),
        Route(f'{slide}/tissue.json', bind(tissue)),
        Route(f'{slide}/tiles/{tile}', bind(tile_of_nuclei)),
        Route(f'{slide}/density', bind(density)),
        Route(f'{slide}/view', bind(view)),
        Route(f'{slide}/nucleus', bind(nucleus)),
        Route('/{name}', page),
    ]
    app = Starlette(
        routes=[Mount(f'/{token}', routes=routes)],
        lifespan=lifespan,
        # Starlette's own: of what is nowhere, and of numbers of thousands of digits.
        exception_handlers={
            kind: lambda _, error: _say_error(error) for kind in (HTTPException, ValueError)
        },
    )
    return Guard(app, token, hosts)


def page(request: Request) -> Response:
    """A file of the page."""
    name = request.path_params.get('name', '')
    if name not in PAGE:
        raise HTTPException(404, 'no such page')
    package, place, kind = PAGE[name]
    content = files(package).joinpath(place).read_bytes()
    return Response(content, media_type=kind, headers={'Cache-Control': 'no-cache'})


def _say_error(error: Exception) -> Response:
    """Answer with the line of an error, be it foreseen or not."""
    if isinstance(error, HTTPException):
        return _say(error.status_code, error.detail)
    if isinstance(error, UserError):
        return _say(422, describe_error(error))
    if isinstance(error, KeyError):
        return _say(400, f'{error}: unknown')
    if isinstance(error, ValueError):
        return _say(400, str(error))
    return _say(500, describe_error(error))


class Guard:
    """Answers only who has the token and asks for this machine; hardens every answer."""

    def __init__(self, app: ASGIApp, token: str, hosts: Sequence[str]) -> None:
        self._app, self._token, self._hosts = app, token, set(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] != 'http':
            await self._app(scope, receive, send)
            return

        async def hardened(message: Message) -> None:
            if message['type'] == 'http.response.start':
                more = [(key.lower().encode(), text.encode()) for key, text in HEADERS.items()]
                message = {**message, 'headers': [*message.get('headers', []), *more]}
            await send(message)

        request = Request(scope)
        first = scope['path'].removeprefix('/').split('/')[0].encode()
        if request.headers.get('host') not in self._hosts:
            answer: ASGIApp = _say(400, 'not a name of this server')
        elif not secrets.compare_digest(first, self._token.encode()):
            answer = _say(403, 'the address lacks the token that nucseg view has printed')
        elif request.method not in ('GET', 'HEAD'):
            answer = _say(405, 'nothing can be changed here')
        else:
            answer = self._app
        await answer(scope, receive, hardened)


def _say(status: int, text: str) -> Response:
    return Json(dict(error=text), status)


async def list_slides(site: Site, _: Request) -> Response:
    await site.read_again()  # a page begins
    slides = [
        dict(
            number=number,
            name=result.name,
            width=result.width,
            height=result.height,
            mpp=result.mpp,
            nuclei=result.summary.get('nuclei'),
            has_image=result.slide is not None,
        )
        for number, result in site.shown()
    ]
    return Json(dict(slides=slides, problems=site.problems))


async def describe(site: Site, request: Request) -> Response:
    """All about a slide; how far its index is, with status 202, while that is made."""
    await site.renew(request)
    opening = asyncio.ensure_future(site.index(request))
    await asyncio.wait({opening}, timeout=PATIENCE)
    if not opening.done():
        done, total = site.progress(request)
        opening.cancel()  # the waiting, not the making
        return Json(dict(done=done, total=total), 202)
    result, index = site.result(request), opening.result()
    try:
        await run_in_threadpool(images.open_image, result)
        problem = None
    except UserError as error:
        problem = str(error)
    keys = ('num', 'columns', 'classes', 'counts', 'lowest_score', 'reach')
    shown = {key: index.info[key] for key in keys}
    shown['full_density'] = await run_in_threadpool(lambda: index.full_density)
    levels = images.num_levels(result.width, result.height)
    told = ('tissue_mm2', 'broken_tiles', 'tile_grid')
    facts = {key: result.summary.get(key) for key in told}
    size = dict(width=result.width, height=result.height, mpp=result.mpp, region=result.region)
    picture = dict(tile=images.TILE, overlap=images.OVERLAP, levels=levels, problem=problem)
    return Json(dict(name=result.name, **size, picture=picture, facts=facts, **shown))


async def image(site: Site, request: Request) -> Response:
    place = tuple(request.path_params[key] for key in ('level', 'x', 'y'))
    return await _picture(site, request, 'image/jpeg', partial(images.image_tile, place=place))


async def tissue(site: Site, request: Request) -> Response:
    return await _picture(site, request, 'application/json', images.tissue_outlines)


async def _picture(
    site: Site, request: Request, kind: str, draw: Callable[[Slide], bytes]
) -> Response:
    """What is drawn of the slide, as its file is now."""
    result = site.result(request)
    version = await run_in_threadpool(images.version_of, result)
    known = _asked_again(version)
    if version and request.headers.get('if-none-match') == known['ETag']:
        return Response(status_code=304, headers=known)
    key = (request.url.path, version)
    data = await site.read(request, key, lambda: draw(images.open_image(result)))
    if data is None:
        return Response(status_code=GONE)
    return Response(data, media_type=kind, headers=known)


def _asked_again(version: object) -> dict[str, str]:
    """Headers by which the browser asks before it shows it again: the files may have changed."""
    return {'Cache-Control': 'private, no-cache', 'ETag': f'"{version}"'}


async def tile_of_nuclei(site: Site, request: Request) -> Response:
    index = await site.index(request)
    known = _asked_again(index.info['source'])
    if request.headers.get('if-none-match') == known['ETag']:
        return Response(status_code=304, headers=known)
    level, x, y = (request.path_params[key] for key in ('level', 'x', 'y'))
    if level > 20 or max(x, y) >= 1 << 20:
        raise HTTPException(404, 'no such tile')
    column = request.query_params.get('column') or None
    outlines = request.query_params.get('outlines') == '1' and level == 0
    data = await run_in_threadpool(index.tile, level, x, y, column, outlines)
    return Response(data, media_type='application/octet-stream', headers=known)


async def density(site: Site, request: Request) -> Response:
    """Height and width as uint32, side of a cell in px as float32, 0, the two arrays."""
    index = await site.index(request)
    column = request.query_params.get('column') or None
    cell, counts, mean = await run_in_threadpool(index.density, _filter(request), column)
    head = struct.pack('<IIfI', *counts.shape, cell, 0)
    data = head + b''.join(np.asarray(part, '<f4').tobytes() for part in (counts, mean))
    return Response(data, media_type='application/octet-stream')


async def view(site: Site, request: Request) -> Response:
    index = await site.index(request)
    x0, y0, x1, y1 = (_number(request, key) for key in ('x0', 'y0', 'x1', 'y1'))
    column, wanted = request.query_params['column'], _filter(request)
    return Json(await run_in_threadpool(index.view, (x0, y0, x1, y1), wanted, column))


async def nucleus(site: Site, request: Request) -> Response:
    """The nucleus at a place, or the one of an id; null if there is none."""
    index = await site.index(request)
    if 'id' in request.query_params:
        found = await run_in_threadpool(index.nucleus_of, int(request.query_params['id']))
    else:
        x, y, radius = (_number(request, key) for key in ('x', 'y', 'radius'))
        found = await run_in_threadpool(index.nucleus_at, x, y, radius, _filter(request))
    if found is None:
        return Json(None)
    row = await run_in_threadpool(index.row, found)
    return Json(dict(row=row, rings=index.outline(found), centroid=index.centroid(found)))


def _number(request: Request, key: str) -> float:
    number = float(request.query_params[key])
    if not np.isfinite(number) or abs(number) > 1e9:
        raise ValueError(f'{key}={number}: expected px')
    return number


def _filter(request: Request) -> Filter:
    score = float(request.query_params.get('score', '0'))
    return Filter(score, parse_hidden(request.query_params.get('hidden', '')))
