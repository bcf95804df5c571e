"""The files of `static/`, each at an address with the hash of its content, so that browsers keep it for good."""

import gzip
from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple

from fastapi import APIRouter, Request, Response

from worker.api.responses import ApiError

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_FOR_GOOD = "public, max-age=31536000, immutable"
_DIGITS = 16
"""Hexadecimal digits of the hash in an address."""

router = APIRouter(include_in_schema=False)


class StaticFile(NamedTuple):
    """A file as it is sent."""

    content: bytes
    compressed: bytes
    media_type: str
    digest: str


def _read() -> dict[str, StaticFile]:
    found = {}
    for each in (files("worker.pages") / "static").iterdir():
        if (media_type := _TYPES.get(each.name.rpartition(".")[2])) is not None:
            content = each.read_bytes()
            digest = sha256(content).hexdigest()[:_DIGITS]
            found[each.name] = StaticFile(content, gzip.compress(content, mtime=0), media_type, digest)
    return found


_files = _read()


def address(name: str) -> str:
    """The address of a file. Raises KeyError if there is none of that name."""
    return f"/static/{_files[name].digest}/{name}"


@router.get("/static/{digest}/{name}", name="static_file")
async def static_file(digest: str, name: str, request: Request) -> Response:
    """A file, for good; 404 at an address of another version."""
    found = _files.get(name)
    if found is None or found.digest != digest:
        raise ApiError(404, "there is no such file")
    headers = {"Cache-Control": _FOR_GOOD, "Vary": "Accept-Encoding", "X-Content-Type-Options": "nosniff"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.compressed, 200, {**headers, "Content-Encoding": "gzip"}, found.media_type)
    return Response(found.content, 200, headers, found.media_type)
