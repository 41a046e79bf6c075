"""Models as the ledger lists them, for tests that never ask the network itself."""

from __future__ import annotations

from datetime import UTC, datetime

from ktrdr.datasets.plan import FeaturePlan
from ktrdr.models.architecture import MlpArchitecture
from ktrdr.models.bundle import BundleManifest, FeatureIdentity, TrainingRecord
from ktrdr.operations.model import ModelRecord
from ktrdr.strategies import StrategyLibrary, example_root, parse_strategy
from support.control_plane import ControlPlane


async def add_model(plane: ControlPlane, name: str = "sp500_trend", text: str | None = None) -> ModelRecord:
    """A model of a strategy in the ledger; its network file is never read here."""
    text = text or StrategyLibrary([example_root()]).text(name)
    strategy = parse_strategy(text)
    plan = FeaturePlan.from_strategy(strategy)
    timeframes = tuple(timeframe.value for timeframe in strategy.timeframes)
    manifest = BundleManifest(
        strategy_name=strategy.name,
        strategy=text,
        architecture=MlpArchitecture(inputs=len(plan.names), hidden_layers=(4,), activation="relu"),
        features=FeatureIdentity(names=plan.names, digest=plan.digest, warmup_bars=0),
        training=TrainingRecord(
            symbols=strategy.symbols,
            timeframes=timeframes,
            base_timeframe=strategy.base_timeframe.value,
            start_date=None,
            end_date=None,
            datasets=(),
            seed=0,
            device="cpu",
            threads=1,
            metrics={},
            history=(),
        ),
        code_version="0",
        files={"model.onnx": "c" * 64, "weights.safetensors": "d" * 64},
    )
    digest = plane.put(manifest.to_bytes())
    record = ModelRecord(
        model_id=f"{strategy.name}-{digest[:12]}",
        bundle_digest=digest,
        strategy_name=strategy.name,
        operation_id="op",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        symbols=strategy.symbols,
        timeframes=timeframes,
    )
    await plane.store.save_model(record)
    return record
