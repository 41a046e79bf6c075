"""Artifacts by digest: how bars, models and results travel."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from typing import IO, Annotated

from fastapi import APIRouter, Path, Request
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, Response

from ktrdr.artifacts import check_digest
from ktrdr.backend.problems import problem_response
from ktrdr.backend.routes.common import PROBLEMS, Services, json_answer
from ktrdr.errors import CorruptArtifact, InvalidInput, NotFound
from ktrdr.protocol.messages import Problem
from ktrdr.protocol.resources import ArtifactsCollected, CollectArtifacts

__all__ = ["router"]

router = APIRouter(tags=["artifacts"], responses=PROBLEMS)
Digest = Annotated[str, Path(description="SHA-256 of the bytes, 64 lower-case hexadecimal digits")]
_CHUNK = 1 << 20
_RAW = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.head("/artifacts/{sha256}", response_class=FileResponse)
@router.get("/artifacts/{sha256}", response_class=FileResponse)
async def get_artifact(sha256: Digest, request: Request, services: Services) -> Response:
    """The bytes, verified against the digest before the first one is sent; Range is served."""
    check_digest(sha256)
    headers = {"ETag": f'"{sha256}"', "Cache-Control": "private, immutable, max-age=31536000"}
    if f'"{sha256}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    path = await asyncio.to_thread(services.artifacts.path, sha256)
    if request.method == "HEAD" and not services.artifacts.touch(
        sha256
    ):  # who asks may be about to refer to it
        raise NotFound("artifact", sha256)
    return FileResponse(path, media_type="application/octet-stream", headers=headers)


@router.put(
    "/artifacts/{sha256}",
    status_code=201,
    response_class=Response,
    openapi_extra=_RAW,
    responses={200: {"description": "The bytes were here already."}},
)
async def put_artifact(sha256: Digest, request: Request, services: Services) -> Response:
    """Store bytes under their digest. The size must be declared; other bytes than the digest's are refused."""
    check_digest(sha256)
    size = _declared_size(request, services.config.max_artifact_bytes)
    if isinstance(size, Response):
        return size
    if await asyncio.to_thread(services.artifacts.intact, sha256) and services.artifacts.touch(sha256):
        async for _ in request.stream():  # read, so that the connection can be used again
            pass
        return Response(status_code=200)
    with tempfile.TemporaryFile(dir=services.scratch()) as file:
        received = await _spool(request, file)
        if received != size:
            raise InvalidInput(f"{size} bytes were declared and {received} came; nothing was stored.")
        try:
            await asyncio.to_thread(services.artifacts.put_stream, _chunks(file), sha256)
        except CorruptArtifact as error:
            raise InvalidInput(error.message) from None
    return Response(status_code=201)


@router.post("/artifacts/gc", response_model=ArtifactsCollected)
async def collect_artifacts(body: CollectArtifacts, request: Request, services: Services) -> Response:
    """Remove now what nothing has referred to for the grace (`KTRDR_ARTIFACT_GRACE_S`), as the backend does by itself
    several times per grace; with `dry_run` only say what would go."""
    found = await services.garbage.collect(dry_run=body.dry_run)
    return json_answer(ArtifactsCollected(**asdict(found), dry_run=body.dry_run), request)


def _declared_size(request: Request, limit: int) -> int | Response:
    declared = request.headers.get("content-length", "")
    if not declared.isdecimal():
        detail = "Declare the size: Content-Length is required."
        return _refused(request, 411, "length-required", detail)
    if int(declared) > limit:
        detail = f"An artifact may have up to {limit:,} bytes, this one has {declared}."
        return _refused(request, 413, "too-large", detail)
    return int(declared)


def _refused(request: Request, status: int, slug: str, detail: str) -> Response:
    title, instance = slug.replace("-", " ").capitalize(), request.url.path
    kind = f"urn:ktrdr:problem:{slug}"
    return problem_response(Problem(type=kind, title=title, status=status, detail=detail, instance=instance))


async def _spool(request: Request, file: IO[bytes]) -> int:
    """Stream the body to a file, written on a thread a megabyte at a time."""
    received, pending = 0, bytearray()
    try:
        async for chunk in request.stream():
            received += len(chunk)
            pending += chunk
            if len(pending) >= _CHUNK:
                await asyncio.to_thread(file.write, bytes(pending))
                pending.clear()
    except ClientDisconnect:
        return received
    file.write(pending)
    file.seek(0)
    return received


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk
