"""What a model says on the newest bar."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ktrdr.bars import to_datetime
from ktrdr.errors import TooFewBars
from ktrdr.jobs.asking import answer_bars, plan_for
from ktrdr.jobs.market_data import SymbolBars
from ktrdr.market.calendars import known_at
from ktrdr.models.architecture import CLASSES
from ktrdr.models.bundle import Bundle, JsonValue
from ktrdr.models.decision import ACTIONS
from ktrdr.strategies.parse import parse_strategy

__all__ = ["LatestSignal", "latest_signal"]


@dataclass(frozen=True, slots=True)
class LatestSignal:
    """The decision at the close of the newest bar.

    Attributes
    ----------
    time, known_at
        Open of that bar, and when it is complete; both ISO 8601, UTC.
    action, confidence
        BUY, HOLD or SELL after ``threshold``; the probability of the most probable class.
    probabilities
        By class name, before the threshold.
    inputs
        What the network saw, by feature name: memberships in [0, 1], and raw inputs as scaled.
    """

    symbol: str
    timeframe: str
    time: str
    known_at: str
    close: float
    action: str
    confidence: float
    threshold: float
    probabilities: dict[str, float]
    inputs: dict[str, float]

    def to_json(self) -> dict[str, JsonValue]:
        """Plain values for a JSON answer."""
        return asdict(self)


def latest_signal(bundle: Bundle, bars_by_timeframe: SymbolBars) -> LatestSignal:
    """Ask the model, with the strategy it was trained with, about the newest bar of its base timeframe.

    Parameters
    ----------
    bars_by_timeframe
        Bars of one symbol for every timeframe of the strategy, from the dataset's start.

    Raises
    ------
    TooFewBars
        If the newest bar has no complete features yet; with the bars there are and the warm-up needed.
    InvalidInput
        If a timeframe is missing.
    """
    strategy = parse_strategy(bundle.manifest.strategy, source=bundle.manifest.strategy_name)
    plan = plan_for(bundle, strategy)
    threshold = strategy.decisions.confidence_threshold
    steps = answer_bars(bundle, plan, bars_by_timeframe, threshold=threshold)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            answers = stop.value
            break
    base = bars_by_timeframe[plan.base_timeframe]
    answers.features.require_rows()
    if not answers.features.valid_T[-1]:
        raise TooFewBars(
            f"The newest bar of {base.symbol} {base.timeframe} ({base.end:%Y-%m-%d %H:%M}) has no complete features: "
            "a bar of another timeframe is missing, or an indicator has no value there. Load newer bars."
        )
    newest = answers.probabilities_TC[-1]
    return LatestSignal(
        symbol=base.symbol,
        timeframe=base.timeframe.value,
        time=base.end.isoformat(),
        known_at=to_datetime(int(known_at(base[-1:])[-1])).isoformat(),
        close=float(base.close[-1]),
        action=ACTIONS[int(answers.decisions.signal_T[-1])],
        confidence=float(answers.decisions.confidence_T[-1]),
        threshold=threshold,
        probabilities={name: float(p) for name, p in zip(CLASSES, newest, strict=True)},
        inputs={name: float(x) for name, x in zip(plan.names, answers.features.values_TF[-1], strict=True)},
    )
