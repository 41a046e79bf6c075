"""Models, and what they say on the newest bar."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from ktrdr.backend.routes.common import PROBLEMS, Services, json_answer
from ktrdr.backend.signals import latest_signal_of
from ktrdr.backend.submission.services import find_model
from ktrdr.operations.model import ModelRecord
from ktrdr.protocol.resources import ModelList, ModelView, SignalView

__all__ = ["router"]

router = APIRouter(tags=["models"], responses=PROBLEMS)
Id = Annotated[str, Path(max_length=128)]


def _view(model: ModelRecord) -> ModelView:
    return ModelView(
        model_id=model.model_id,
        strategy_name=model.strategy_name,
        symbols=list(model.symbols),
        timeframes=list(model.timeframes),
        created_at=model.created_at,
        operation_id=model.operation_id,
        bundle=model.bundle_digest,
        metrics=dict(model.metrics),
    )


@router.get("/models", response_model=ModelList)
async def list_models(
    request: Request, services: Services, strategy_name: Annotated[str | None, Query(max_length=128)] = None
) -> Response:
    """Trained models, newest first."""
    models = [_view(model) for model in await services.store.models(strategy_name)]
    return json_answer(ModelList(items=models, total=len(models)), request)


@router.get("/models/{model_id}", response_model=ModelView)
async def get_model(model_id: Id, request: Request, services: Services) -> Response:
    """One model: what it was trained on, with what result."""
    return json_answer(_view(await find_model(services.store, model_id)), request)


@router.get("/models/{model_id}/signal", response_model=SignalView)
async def get_signal(
    model_id: Id,
    request: Request,
    services: Services,
    symbol: Annotated[str | None, Query(max_length=64, description="default: the model's first")] = None,
) -> Response:
    """What the model says on the newest stored bar of a symbol."""
    model = await find_model(services.store, model_id)
    signal = await latest_signal_of(model, symbol or model.symbols[0], services.data, services.artifacts)
    return json_answer(signal, request)
