"""The files of the page, compressed once and served from memory: a page loads twenty of them."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["Assets"]

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What is served; a folder may hold other files, such as licences. Not the system's table of types:
browsers run no script that has another type."""


THEME_COOKIE = "driftgate_theme"
_THEMES = ("light", "dark")
_HTML = b'<html lang="en">'


class _Asset(msgspec.Struct, frozen=True):
    plain: bytes
    packed: bytes
    type: str
    etag: str


class Assets:
    """The files of a folder, as they were when it was made.

    Args:
        folder: with everything below it.
    """

    def __init__(self, folder: Path) -> None:
        self._assets = {
            path.relative_to(folder).as_posix(): _asset(path.read_bytes(), path.suffix)
            for path in sorted(folder.rglob("*"))
            if path.suffix in _TYPES
        }
        page = (folder / "index.html").read_bytes()
        self._pages = {
            theme: _asset(
                page.replace(_HTML, _HTML[:-1] + f' data-theme="{theme}">'.encode()), ".html"
            )
            for theme in _THEMES
        }

    async def page(self, request: Request) -> Response:
        """The page itself: it holds no data, those come when somebody has signed in.

        A theme that was chosen stands in it from the beginning, so that a dark page never flashes.
        """
        theme = request.cookies.get(THEME_COOKIE, "")
        return _answer(self._pages.get(theme, self._assets["index.html"]), request)

    async def file(self, request: Request) -> Response:
        """A file by its path."""
        asset = self._assets.get(request.path_params["path"])
        if asset is None:
            raise HTTPException(404, "there is no such file")
        return _answer(asset, request)


def _answer(asset: _Asset, request: Request) -> Response:
    headers = {"etag": asset.etag, "vary": "accept-encoding, cookie"}
    if request.headers.get("if-none-match") == asset.etag:
        return Response(status_code=304, headers=headers)
    packed = "gzip" in request.headers.get("accept-encoding", "")
    if packed:
        headers["content-encoding"] = "gzip"
    content = asset.packed if packed else asset.plain
    return Response(content, headers=headers, media_type=asset.type)


def _asset(plain: bytes, suffix: str) -> _Asset:
    return _Asset(
        plain=plain,
        packed=gzip.compress(plain, mtime=0),
        type=_TYPES[suffix],
        etag=f'"{hashlib.sha256(plain).hexdigest()[:16]}"',
    )
