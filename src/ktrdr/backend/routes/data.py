"""Market data: list, show, import, delete, samples."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from ktrdr.backend.access.actions import tell
from ktrdr.backend.routes.common import PROBLEMS, Services, json_answer
from ktrdr.errors import FieldError, InvalidInput
from ktrdr.market.manifest import DatasetManifest
from ktrdr.protocol.resources import DatasetList, DatasetView, ImportView

__all__ = ["router"]

router = APIRouter(tags=["data"], responses=PROBLEMS)
_LONGEST_NAME = 255
_RAW = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def _view(manifest: DatasetManifest) -> DatasetView:
    return DatasetView(
        symbol=manifest.symbol,
        timeframe=manifest.timeframe.value,
        calendar=manifest.calendar,
        source=manifest.source,
        licence=manifest.licence,
        rows=manifest.rows,
        start=manifest.start,
        end=manifest.end,
        quotes=manifest.quotes,
        digest=manifest.digest,
        manifest=manifest.artifact,
        notes=list(manifest.notes),
    )


def _list(manifests: tuple[DatasetManifest, ...]) -> DatasetList:
    return DatasetList(items=[_view(m) for m in manifests], total=len(manifests))


@router.get("/data", response_model=DatasetList)
async def list_data(request: Request, services: Services) -> Response:
    """Every stored dataset."""
    return json_answer(_list(await services.data.datasets()), request)


@router.post("/data/samples", response_model=DatasetList)
async def install_samples(request: Request, services: Services) -> Response:
    """Put the bundled real data into the store; what is stored already is left as it is."""
    return json_answer(_list(await services.data.install_samples()), request)


@router.post("/data/import", response_model=ImportView, openapi_extra=_RAW)
async def import_data(
    request: Request,
    services: Services,
    symbol: Annotated[str, Query(min_length=1, max_length=64)],
    timeframe: Annotated[str, Query(max_length=8)],
    filename: Annotated[str, Query(max_length=255, description="tells the format: .csv, .csv.gz, .parquet")],
    calendar: Annotated[str | None, Query(max_length=32)] = None,
    policy: Literal["refuse", "quarantine", "repair"] = "refuse",
    time_zone: Annotated[str | None, Query(max_length=64, description="of stamps without offset")] = None,
) -> Response:
    """Import a file of bars; the request's body is the file. A file with faults is refused whole, with its rows
    named in ``errors``, unless ``policy`` says otherwise."""
    tell(request.scope, f"{symbol}/{timeframe}", filename)
    name = _file_name(filename)
    with tempfile.TemporaryDirectory(prefix="upload-", dir=services.scratch()) as folder:
        path = Path(folder) / name
        await _save(request, path, services.config.max_artifact_bytes)
        manifest, report = await services.data.import_upload(
            path,
            symbol=symbol,
            timeframe=timeframe,
            calendar=calendar,
            policy=policy,
            time_zone=time_zone,
        )
    view = ImportView(**_view(manifest).model_dump(), report=report)
    return json_answer(view, request)


def _file_name(told: str) -> str:
    """The last part of a client's path, if a file can have that name here."""
    name = told.replace("\\", "/").rpartition("/")[2]
    if name in ("", ".", "..") or not name.isprintable() or len(name.encode()) > _LONGEST_NAME:
        raise InvalidInput(
            f"'{told[:100]}' is not the name of a file: up to {_LONGEST_NAME} bytes of printable characters.",
            [FieldError("query/filename", "not the name of a file")],
        )
    return name


async def _save(request: Request, path: Path, limit: int) -> None:
    """Stream the body to a file, a thread doing the writing."""
    received = 0
    with path.open("wb") as file:
        try:
            async for chunk in request.stream():
                received += len(chunk)
                if received > limit:
                    raise InvalidInput(f"The file is larger than {limit:,} bytes. Split it by years.")
                await asyncio.to_thread(file.write, chunk)
        except ClientDisconnect:
            raise InvalidInput("The upload broke off; nothing was imported.") from None
    if received == 0:
        raise InvalidInput("The request has no body: send the file as the body of the request.")


@router.get("/data/{symbol}/{timeframe}", response_model=DatasetView)
async def get_data(symbol: str, timeframe: str, request: Request, services: Services) -> Response:
    """One dataset: range, source, licence, digest."""
    return json_answer(_view(await services.data.manifest(symbol, timeframe)), request)


@router.delete("/data/{symbol}/{timeframe}", status_code=204)
async def delete_data(symbol: str, timeframe: str, services: Services) -> None:
    """Forget a dataset; operations submitted before keep their copy."""
    await services.data.delete(symbol, timeframe)
