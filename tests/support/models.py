"""Models as the ledger lists them, for tests that never ask the network itself."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from ktrdr.datasets.plan import FeaturePlan
from ktrdr.models.architecture import MlpArchitecture
from ktrdr.models.bundle import BundleManifest, FeatureIdentity, TrainingRecord
from ktrdr.models.onnx_graph import build_onnx
from ktrdr.operations.model import ModelRecord
from ktrdr.strategies import StrategyLibrary, example_root, parse_strategy
from support.control_plane import ControlPlane


async def add_model(plane: ControlPlane, name: str = "sp500_trend", *, network: bool = False) -> ModelRecord:
    """A model of a strategy in the ledger; with ``network`` one of random weights that can be asked."""
    text = StrategyLibrary([example_root()]).text(name)
    strategy = parse_strategy(text)
    plan = FeaturePlan.from_strategy(strategy)
    timeframes = tuple(timeframe.value for timeframe in strategy.timeframes)
    architecture = MlpArchitecture(inputs=len(plan.names), hidden_layers=(4,), activation="relu")
    model = plane.put(_network(architecture)) if network else "c" * 64
    manifest = BundleManifest(
        strategy_name=strategy.name,
        strategy=text,
        architecture=architecture,
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
        files={"model.onnx": model, "weights.safetensors": "d" * 64},
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


def _network(architecture: MlpArchitecture) -> bytes:
    rng = np.random.default_rng(7)
    shapes = architecture.parameter_shapes().items()
    return build_onnx(
        architecture, {name: rng.normal(0, 0.5, shape).astype("float32") for name, shape in shapes}
    )
