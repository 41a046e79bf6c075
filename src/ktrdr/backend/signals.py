"""What a model says on the newest bar: the one thing the backend computes itself, a few milliseconds of it.

It is asked interactively and needs no worker. It runs on a thread, and onnxruntime is loaded by the first question.
"""

from __future__ import annotations

import asyncio

from ktrdr.artifacts import FileArtifactStore
from ktrdr.backend.data import DataService
from ktrdr.market.manifest import load_dataset
from ktrdr.models.bundle import load_bundle
from ktrdr.operations.model import ModelRecord
from ktrdr.protocol.resources import SignalView
from ktrdr.timeframe import Timeframe

__all__ = ["latest_signal_of"]


async def latest_signal_of(
    model: ModelRecord, symbol: str, data: DataService, artifacts: FileArtifactStore
) -> SignalView:
    """The model's decision at the close of the newest stored bar of ``symbol``.

    Raises
    ------
    NotFound
        If a timeframe of the model is not stored for the symbol.
    TooFewBars
        If the newest bar has no complete features.
    """
    timeframes = [Timeframe.parse(text) for text in model.timeframes]
    manifests = {timeframe: await data.resolve(symbol, timeframe) for timeframe in timeframes}

    def work() -> SignalView:
        from ktrdr.jobs.signal import latest_signal  # lazy: loads onnxruntime and the kernels

        bars = {t: load_dataset(artifacts, manifest.artifact, t) for t, manifest in manifests.items()}
        said = latest_signal(load_bundle(artifacts, model.bundle_digest), bars)
        return SignalView.model_validate(
            {
                "model_id": model.model_id,
                "symbol": said.symbol,
                "timeframe": said.timeframe,
                "time": said.known_at,
                "bar_opened_at": said.time,
                "close": said.close,
                "action": said.action,
                "confidence": said.confidence,
                "threshold": said.threshold,
                "probabilities": said.probabilities,
                "memberships": said.inputs,
            }
        )

    return await asyncio.to_thread(work)
