"""Strategy documents and the indicators they may use."""

from __future__ import annotations

import asyncio
import math
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from ktrdr.backend.routes.common import PROBLEMS, Services, json_answer
from ktrdr.datasets.plan import FeaturePlan
from ktrdr.errors import KtrdrError
from ktrdr.indicators import IndicatorSpec, catalog
from ktrdr.protocol.messages import ProblemItem
from ktrdr.protocol.requests import StrategySave, StrategyText
from ktrdr.protocol.resources import (
    IndicatorList,
    IndicatorParameter,
    IndicatorView,
    StrategyCheck,
    StrategyDocument,
    StrategyList,
    StrategySummary,
)
from ktrdr.strategies import Strategy, StrategyLibrary, notes_on, parse_strategy

__all__ = ["router"]

router = APIRouter(tags=["strategies"], responses=PROBLEMS)
Name = Annotated[str, Path(max_length=128)]


def _facts(strategy: Strategy) -> dict[str, object]:
    return {
        "name": strategy.name,
        "description": strategy.description,
        "version": strategy.version,
        "symbols": list(strategy.symbols),
        "timeframes": [timeframe.value for timeframe in strategy.timeframes],
    }


def _summary(library: StrategyLibrary, name: str) -> StrategySummary:
    try:
        return StrategySummary.model_validate(_facts(library.get(name)))
    except KtrdrError as error:
        return StrategySummary(name=name, error=str(error))


def _document(library: StrategyLibrary, name: str) -> StrategyDocument:
    text = library.text(name)
    summary = _summary(library, name)
    return StrategyDocument(**summary.model_dump(), text=text)


def _check(text: str) -> StrategyCheck:
    strategy = parse_strategy(text)
    plan = FeaturePlan.from_strategy(strategy)
    return StrategyCheck(
        name=strategy.name,
        symbols=list(strategy.symbols),
        timeframes=[timeframe.value for timeframe in strategy.timeframes],
        features=list(plan.names),
        warmup={timeframe.value: plan.warmup(timeframe) for timeframe in plan.timeframes},
        notes=[
            ProblemItem(pointer=n.pointer, message=n.message, line=n.line, column=n.column)
            for n in notes_on(strategy)
        ],
    )


@router.get("/strategies", response_model=StrategyList)
async def list_strategies(request: Request, services: Services) -> Response:
    """Stored strategies and the examples that come with ktrdr; those with faults say so."""

    def work() -> list[StrategySummary]:
        return [_summary(services.library, name) for name in services.library.names()]

    items = await asyncio.to_thread(work)
    return json_answer(StrategyList(items=items, total=len(items)), request)


@router.post("/strategies/validate")
async def validate_strategy(body: StrategyText) -> StrategyCheck:
    """Check a document; 422 lists every fault with line and column."""
    return await asyncio.to_thread(_check, body.strategy)


@router.get("/strategies/{name}", response_model=StrategyDocument)
async def get_strategy(name: Name, request: Request, services: Services) -> Response:
    """One stored strategy with its YAML."""
    return json_answer(await asyncio.to_thread(_document, services.library, name), request)


@router.put("/strategies/{name}")
async def put_strategy(name: Name, body: StrategySave, services: Services) -> StrategyDocument:
    """Store a valid document under its name; 409 if there is one and ``overwrite`` is not set."""

    def work() -> StrategyDocument:
        services.library.save(name, body.strategy, overwrite=body.overwrite)
        return _document(services.library, name)

    return await asyncio.to_thread(work)


@router.get("/indicators", response_model=IndicatorList)
async def list_indicators(request: Request) -> Response:
    """The catalog of indicators with parameters, ranges and outputs."""
    items = [_indicator(spec) for spec in catalog().values()]
    return json_answer(IndicatorList(items=items, total=len(items)), request)


def _indicator(spec: IndicatorSpec) -> IndicatorView:
    parameters = [
        IndicatorParameter(
            name=p.name,
            kind=p.kind,
            default=p.default,
            minimum=p.minimum if math.isfinite(p.minimum) else None,
            maximum=p.maximum if math.isfinite(p.maximum) else None,
            choices=list(p.choices),
            doc=p.doc,
        )
        for p in spec.parameters
    ]
    return IndicatorView(
        name=spec.name,
        title=spec.title,
        parameters=parameters,
        outputs=list(spec.outputs),
        bounds=spec.bounds,
        needs_volume=spec.needs_volume,
        formula=spec.formula,
        reference=spec.reference,
    )
