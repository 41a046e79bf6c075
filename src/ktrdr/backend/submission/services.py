"""The kinds of work the backend takes: what their requests mean, and what makes them impossible."""

from __future__ import annotations

import asyncio
from functools import lru_cache, partial

from ktrdr.artifacts import ArtifactStore
from ktrdr.backend.submission.documents import overridden, plan_of
from ktrdr.backend.submission.orchestrator import ServiceOrchestrator, Stamps, Work
from ktrdr.datasets.plan import FeaturePlan
from ktrdr.errors import FieldError, InvalidInput, InvalidModel, NotFound
from ktrdr.models.bundle import BundleManifest, load_bundle, refuse_pickle
from ktrdr.operations.model import ModelRecord, OperationType
from ktrdr.operations.store import OperationStore
from ktrdr.protocol.requests import StartBacktest, StartTraining
from ktrdr.protocol.specs import BacktestSpec, DatasetRef, TrainingSpec
from ktrdr.strategies import Strategy

__all__ = ["BacktestingService", "TrainingService", "find_model"]

_FEWEST_TO_TRAIN = 30  # ten rows for each part of the split; the split itself may ask for more
_FEWEST_TO_TEST = 2
_REMEMBERED = 32  # bundles whose manifest is kept in memory


class TrainingService(ServiceOrchestrator[StartTraining]):
    """Trainings: GPU workers first unless the request says otherwise."""

    operation_type = OperationType.TRAINING

    async def resolve(self, request: StartTraining) -> Work:
        document = await self._document(request)
        if document is None:
            raise InvalidInput(
                "The request names no strategy: give strategy_name, strategy (YAML text) or strategy_config_path.",
                [FieldError("/strategy_name", "missing")],
            )
        return await self._once(request, document, partial(self._work, request, document))

    def _work(self, request: StartTraining, document: tuple[str, str]) -> tuple[Stamps, Work]:
        strategy = overridden(
            *document,
            symbols=None if request.symbols is None else tuple(request.symbols),
            timeframes=None if request.timeframes is None else tuple(request.timeframes),
            start_date=request.start_date,
            end_date=request.end_date,
            seed=request.seed,
        )
        stamps = self._stamps(strategy.symbols)
        plan = plan_of(strategy.text)
        start, end = strategy.training_data.start_date, strategy.training_data.end_date
        first, last = (None if day is None else day.isoformat() for day in (start, end))
        datasets: list[DatasetRef] = []
        for symbol in strategy.symbols:
            datasets += self._survey(
                plan, symbol, strategy.timeframes, first, last, _FEWEST_TO_TRAIN, "training needs"
            )
        spec = TrainingSpec(
            strategy_name=strategy.name,
            strategy=strategy.text,
            symbols=list(strategy.symbols),
            timeframes=[timeframe.value for timeframe in strategy.timeframes],
            datasets=datasets,
            start_date=first,
            end_date=last,
            seed=request.seed,
        )
        requirements = {"prefer_gpu": request.prefer_gpu, "require_gpu": request.require_gpu}
        return stamps, Work(spec, requirements)


class BacktestingService(ServiceOrchestrator[StartBacktest]):
    """Backtests of trained models."""

    operation_type = OperationType.BACKTESTING

    async def resolve(self, request: StartBacktest) -> Work:
        model = await self._named_model(request)
        document = await self._document(request)
        if model is None:
            if document is None:
                raise InvalidInput(
                    "The request names neither a strategy nor a model: give strategy_name, strategy or model_id.",
                    [FieldError("/strategy_name", "missing")],
                )
            model = await self._newest_model(await asyncio.to_thread(_strategy_of, request, document))
        names = (document, model.model_id, model.bundle_digest)
        return await self._once(request, names, partial(self._work, request, model, document))

    def _work(
        self, request: StartBacktest, model: ModelRecord, document: tuple[str, str] | None
    ) -> tuple[Stamps, Work]:
        """Without a document: the one that the model was trained with."""
        bundle = _manifest(self._use.artifacts, model.bundle_digest)
        strategy = _strategy_of(request, document or (bundle.strategy, model.model_id))
        plan = plan_of(strategy.text)
        _check_fit(model, bundle, strategy, plan)
        symbol = request.symbol or strategy.symbols[0]
        stamps = self._stamps((symbol,))
        datasets = self._survey(
            plan,
            symbol,
            strategy.timeframes,
            request.start_date,
            request.end_date,
            _FEWEST_TO_TEST,
            "the backtest needs",
        )
        spec = BacktestSpec(
            strategy_name=strategy.name,
            strategy=strategy.text,
            symbol=symbol,
            timeframe=strategy.base_timeframe.value,
            datasets=datasets,
            model=model.bundle_digest,
            model_id=model.model_id,
            start_date=request.start_date,
            end_date=request.end_date,
            initial_capital=request.initial_capital,
            commission=request.commission,
            slippage=request.slippage,
        )
        return stamps, Work(spec)

    async def _named_model(self, request: StartBacktest) -> ModelRecord | None:
        if request.model_path is not None:
            refuse_pickle(request.model_path)
            if request.model_id is not None and request.model_id != request.model_path:
                raise InvalidInput("The request has model_id and model_path; give one of them.")
        name = request.model_id or request.model_path
        if name is None:
            return None
        return await find_model(self._use.store, name)

    async def _newest_model(self, strategy: Strategy) -> ModelRecord:
        wanted = {timeframe.value for timeframe in strategy.timeframes}
        models = await self._use.store.models(strategy.name)
        for model in models:
            if set(model.timeframes) == wanted:
                return model
        hint = f"Train one: ktrdr models train --strategy {strategy.name}"
        if models:
            hint += f" --timeframe {strategy.base_timeframe.value} (those there are for {', '.join(models[0].timeframes)})"
        raise NotFound("model of strategy", strategy.name, hint=hint)


def _strategy_of(request: StartBacktest, document: tuple[str, str]) -> Strategy:
    return overridden(*document, timeframes=None if request.timeframe is None else (request.timeframe,))


@lru_cache(_REMEMBERED)
def _manifest(artifacts: ArtifactStore, digest: str) -> BundleManifest:
    """Read once per model: what has this digest can never change."""
    return load_bundle(artifacts, digest).manifest


def _check_fit(model: ModelRecord, bundle: BundleManifest, strategy: Strategy, plan: FeaturePlan) -> None:
    """A model fits a strategy if it reads exactly the strategy's features; other symbols are allowed."""
    trained, wanted = bundle.training.base_timeframe, strategy.base_timeframe.value
    if trained != wanted:
        raise InvalidModel(
            f"Model '{model.model_id}' was trained on {trained} bars and cannot judge {wanted} bars. "
            f"Train one: ktrdr models train --strategy {strategy.name} --timeframe {wanted}"
        )
    if bundle.features.digest == plan.digest:
        return
    names = set(bundle.features.names) ^ set(plan.names)
    differ = f"they differ in {', '.join(sorted(names)[:5])}" if names else "their parameters or sets differ"
    raise InvalidModel(
        f"Model '{model.model_id}' reads other inputs than strategy '{strategy.name}' defines ({differ}). "
        f"Train it again: ktrdr models train --strategy {strategy.name}"
    )


async def find_model(store: OperationStore, model_id: str) -> ModelRecord:
    """The model; raises NotFound with the nearest id."""
    try:
        return await store.model(model_id)
    except NotFound:
        known = [record.model_id for record in await store.models()]
        hint = "'ktrdr models list' shows what there is"
        raise NotFound("model", model_id, valid=known, hint=hint) from None
