"""The HTTP application: ``uvicorn ktrdr.backend.app:app`` or :func:`create_app` for one's own configuration."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request

from ktrdr.backend import problems
from ktrdr.backend.access.doorman import Doorman
from ktrdr.backend.access.guards import Guard
from ktrdr.backend.access.scopes import unlisted
from ktrdr.backend.config import BackendConfig
from ktrdr.backend.patience import Patience
from ktrdr.backend.routes import (
    artifacts,
    audit,
    data,
    metrics,
    models,
    operations,
    queue,
    starts,
    strategies,
    tokens,
    workers,
)
from ktrdr.backend.routes.common import PROBLEMS
from ktrdr.backend.submission.turnstile import Turnstile
from ktrdr.backend.wiring import Backend, Parts
from ktrdr.protocol.messages import BackendHealth
from ktrdr.protocol.queries import known_query

__all__ = ["PREFIX", "create_app"]

PREFIX = "/api/v1"
_PATIENCE_S = 10.0
_ROUTERS: tuple[APIRouter, ...] = (
    workers.router,
    starts.router,
    operations.router,
    queue.router,
    data.router,
    models.router,
    strategies.router,
    artifacts.router,
    metrics.router,
    tokens.router,
    audit.router,
)


def create_app(
    config: BackendConfig, parts: Parts | None = None, *, backend: Backend | None = None
) -> FastAPI:
    """The application; its ledger is opened when it starts serving, unless an open ``backend`` is given."""

    doorman = Doorman(config)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = backend or Backend(config, parts)
        await services.start()
        app.state.backend = services
        watch = asyncio.create_task(services.metrics.loop.run())
        doorman.book, doorman.audit = services.tokens, services.audit
        try:
            yield
        finally:
            watch.cancel()
            await services.stop()

    app = FastAPI(
        title="ktrdr",
        version=config.version,
        summary="Train, backtest and compare neuro-fuzzy trading strategies.",
        description="Errors are RFC 9457 problems. POSTs that start work honour `Idempotency-Key`.",
        lifespan=lifespan,
        redirect_slashes=False,
        dependencies=[Depends(known_query)],
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    problems.install(app)
    app.add_middleware(Turnstile, refused=lambda: _refused(app))
    app.add_middleware(Patience, patience_s=_PATIENCE_S)
    app.add_middleware(Guard, config=config, doorman=doorman)
    app.add_api_route("/health", _health, response_model=BackendHealth, tags=["health"], responses=PROBLEMS)
    for router in _ROUTERS:
        app.include_router(router, prefix=PREFIX)
    app.include_router(metrics.root)
    if missing := unlisted(app.routes):
        raise AssertionError(
            f"routes without a line in ktrdr.backend.access.scopes.ROUTES: {', '.join(missing)}"
        )
    return app


def _refused(app: FastAPI) -> None:
    backend: Backend = app.state.backend
    backend.metrics.refused.inc()


async def _health(request: Request) -> BackendHealth:
    """Whether the backend serves; the only route without a credential."""
    backend: Backend = request.app.state.backend
    return BackendHealth(
        version=backend.config.version,
        workers=len(backend.registry),
        paused=sorted(backend.operations.pauses.known),
        role="leader" if backend.leads else "follower",
        epoch=backend.epoch,
    )


def __getattr__(name: str) -> Any:
    """``app`` is made at its first use, so that importing this module reads no environment."""
    if name == "app":
        globals()["app"] = create_app(BackendConfig.from_environment())
        return globals()["app"]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
