"""The newcomer's face: bars, a strategy, a model, a result. In process, by the same job code that workers run."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from ktrdr import settings
from ktrdr.artifacts import ArtifactStore, FileArtifactStore
from ktrdr.backtesting import Result
from ktrdr.bars import Bars, parse_time, to_datetime
from ktrdr.errors import InvalidInput, InvalidModel, NotFound
from ktrdr.jobs.checkpoint import ResumePoint
from ktrdr.jobs.market_data import Moment
from ktrdr.market.resample import can_resample, resample
from ktrdr.market.samples import load_sample, sample_list
from ktrdr.market.store import MarketStore
from ktrdr.models.bundle import (
    MODEL_FILE,
    WEIGHTS_FILE,
    Bundle,
    JsonValue,
    export_bundle,
    load_bundle,
    refuse_pickle,
)
from ktrdr.operations.progress import Metric, Progress
from ktrdr.strategies import Strategy, StrategyLibrary, parse_strategy, read_strategy_file, with_overrides
from ktrdr.timeframe import Timeframe

if TYPE_CHECKING:
    from ktrdr.jobs.signal import LatestSignal

__all__ = ["Model", "backtest", "load_bars", "load_model", "load_strategy", "train"]

AnyBars: TypeAlias = Bars | Iterable[Bars] | Mapping[str, "AnyBars"]
"""Bars as they come: one, several, or mappings of them to any depth; each knows its own symbol and timeframe."""
Listener = Callable[[Progress], object]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model. It lives in a temporary folder until :meth:`save` writes it somewhere."""

    bundle: Bundle

    @property
    def digest(self) -> str:
        """The model's identity: equal for equal bars, strategy and seed."""
        return self.bundle.digest

    @property
    def strategy(self) -> Strategy:
        """The strategy it was trained with, overrides included."""
        manifest = self.bundle.manifest
        return parse_strategy(manifest.strategy, source=manifest.strategy_name)

    @property
    def metrics(self) -> Mapping[str, JsonValue]:
        """Losses, accuracies, per-class recall, confusion matrices and what became of every row."""
        return self.bundle.manifest.training.metrics

    @property
    def history(self) -> tuple[Mapping[str, JsonValue], ...]:
        """One record per epoch."""
        return self.bundle.manifest.training.history

    def signal(self, bars: AnyBars, *, symbol: str | None = None) -> LatestSignal:
        """What the model says on the newest of these bars; see :func:`ktrdr.jobs.signal.latest_signal`."""
        from ktrdr.jobs.signal import latest_signal  # lazy: onnxruntime

        strategy = self.strategy
        return latest_signal(self.bundle, _of_one_symbol(bars, symbol, strategy))

    def save(self, folder: str | PathLike[str]) -> Path:
        """Write ``bundle.json``, ``model.onnx`` and ``weights.safetensors`` into ``folder``."""
        return export_bundle(self.bundle, Path(folder))

    def __repr__(self) -> str:
        manifest = self.bundle.manifest
        of = ", ".join(manifest.training.symbols)
        timeframes = " + ".join(manifest.training.timeframes)
        return f"Model({manifest.strategy_name}, {of} {timeframes}, {self.digest[:12]})"


def load_bars(symbol: str, timeframe: str = "1d", *, home: Path | None = None) -> Bars:
    """Bars of the user's own store (in ``home``, by default ``KTRDR_HOME``), else of the bundled samples.

    Raises
    ------
    NotFound
        If neither has this symbol in this or a shorter timeframe that it can be made of.
    """
    wanted = Timeframe.parse(timeframe)
    root = home or settings.home()
    missing: NotFound | None = None
    if (root / "data").is_dir():
        try:
            return MarketStore(root / "data", FileArtifactStore(root / "artifacts")).load(symbol, wanted)
        except NotFound as error:
            missing = error
    for name, finer in reversed(sample_list()):
        if name == symbol and finer.seconds <= wanted.seconds:
            bars = load_sample(name, finer)
            if finer == wanted or can_resample(bars.calendar, finer, wanted):
                return resample(bars, wanted)
    names = [f"{name} {of.value}" for name, of in sample_list()]
    raise missing or NotFound(
        "market data",
        f"{symbol} {wanted.value}",
        valid=names,
        hint=f"Bundled: {', '.join(names)}. Import your own: ktrdr data import FILE --symbol {symbol}",
    )


def load_strategy(name: str | PathLike[str], *, home: Path | None = None) -> Strategy:
    """A strategy by name (your own in ``KTRDR_HOME/strategies``, then the examples) or by path to a YAML file.

    ``home`` stands in for ``KTRDR_HOME``.

    Raises
    ------
    NotFound
        If there is none; with the nearest name.
    InvalidStrategy
        If the document has faults; with line and column of each.
    """
    text = str(name)
    if isinstance(name, PathLike) or "/" in text or text.endswith((".yaml", ".yml")):
        return read_strategy_file(text)
    return StrategyLibrary.with_examples((home or settings.home()) / "strategies").get(text)


def train(
    strategy: Strategy,
    bars: AnyBars,
    *,
    start: Moment = None,
    end: Moment = None,
    seed: int | None = None,
    epochs: int | None = None,
    device: str = "auto",
    threads: int = 1,
    artifacts: ArtifactStore | None = None,
    progress: Listener | None = None,
) -> Model:
    """Train a strategy's network on bars.

    Parameters
    ----------
    strategy
        From :func:`load_strategy`. Its symbols are replaced by those of ``bars`` where they differ.
    bars
        Bars of every symbol and timeframe; a timeframe that is not given is resampled from a shorter one that is.
    start, end, seed, epochs
        Replace the document's values.
    device, threads
        See :func:`ktrdr.jobs.train.train_model`.
    artifacts
        Where the model is kept; a temporary folder that goes with the model if not given.
    progress
        Called with each :class:`ktrdr.operations.progress.Progress`.

    Raises
    ------
    MissingExtra
        If torch is not installed.
    InvalidInput, TooFewBars
        If bars are missing or too few.
    """
    from ktrdr.jobs.train import train_model  # lazy: torch

    _require(strategy, Strategy, "strategy", "ktrdr.load_strategy(...)")
    given = _by_symbol(bars)
    symbols = strategy.symbols if set(given) == set(strategy.symbols) else tuple(given)
    changed = with_overrides(
        strategy, symbols=symbols, start_date=_day(start), end_date=_day(end), seed=seed, epochs=epochs
    )
    market = {symbol: _with_timeframes(part, changed.timeframes) for symbol, part in given.items()}
    store = artifacts or _scratch_store()
    trained = _drain(train_model(changed, market, store, device=device, threads=threads), progress)
    return Model(trained.bundle)


def backtest(
    model: Model,
    bars: AnyBars,
    *,
    start: Moment = None,
    end: Moment = None,
    symbol: str | None = None,
    strategy: Strategy | None = None,
    initial_capital: float | None = None,
    commission: float | None = None,
    slippage: float | None = None,
    progress: Listener | None = None,
) -> Result:
    """Let a model trade on bars.

    Parameters
    ----------
    model
        From :func:`train` or :func:`load_model`.
    bars
        Bars from as early as there are: what lies before ``start`` feeds the warm-up.
    start, end
        Both included.
    symbol
        Which one, where ``bars`` has several.
    strategy
        Whose decisions, costs and rules to use; by default the model's own.
    initial_capital, commission, slippage
        Replace the strategy's values; rates such as 0.001.
    progress
        Called with each :class:`ktrdr.operations.progress.Progress`.

    Raises
    ------
    InvalidModel
        If the model was trained on other inputs.
    TooFewBars
        If fewer than 2 bars of the range have features.
    """
    from ktrdr.jobs.backtest import SimulationOverrides, backtest_model  # lazy: onnxruntime

    _require(model, Model, "model", "ktrdr.train(...) or ktrdr.load_model(...)")
    own = strategy or model.strategy
    _require(own, Strategy, "strategy", "ktrdr.load_strategy(...)")
    steps = backtest_model(
        model.bundle,
        _of_one_symbol(bars, symbol, own),
        strategy=own,
        start=start,
        end=end,
        overrides=SimulationOverrides(initial_capital, commission, slippage),
    )
    return _drain(steps, progress).result


def load_model(folder: str | PathLike[str]) -> Model:
    """A model from the folder that :meth:`Model.save` wrote.

    Raises
    ------
    NotFound
        If the folder or one of its three files is absent.
    InvalidModel
        If it is a pickled file, or not a bundle.
    """
    path = Path(folder)
    refuse_pickle(str(path))
    if not (path / "bundle.json").is_file():
        raise NotFound(
            "model folder", str(path), hint="It should hold bundle.json; Model.save(folder) writes one"
        )
    store = _scratch_store()
    bundle = load_bundle(store, store.put((path / "bundle.json").read_bytes()))
    for name in (MODEL_FILE, WEIGHTS_FILE):
        file = path / name
        if not file.is_file():
            raise NotFound("model file", str(file))
        if store.put(file.read_bytes()) != bundle.manifest.files[name]:
            raise InvalidModel(f"{file} is not the file that bundle.json names; the folder is damaged.")
    return Model(bundle)


class _ScratchStore(FileArtifactStore):
    """Artifacts in a temporary folder that is removed with the last object that uses it."""

    def __init__(self) -> None:
        folder = tempfile.mkdtemp(prefix="ktrdr-")
        super().__init__(Path(folder))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)


def _scratch_store() -> FileArtifactStore:
    return _ScratchStore()


def _drain(steps: Generator[Progress | Metric | ResumePoint, None, _T], progress: Listener | None) -> _T:
    while True:
        try:
            event = next(steps)
        except StopIteration as stop:
            result: _T = stop.value
            return result
        if progress is not None and isinstance(event, Progress):
            progress(event)


def _require(value: object, kind: type, name: str, source: str) -> None:
    """In a notebook a name, a path or the wrong order of arguments is easily given."""
    if not isinstance(value, kind):
        raise InvalidInput(f"{name} must be what {source} returns, got {value!r:.80}.")


def _no_text(value: object) -> None:
    if isinstance(value, str):  # whose parts are texts, and so on for ever
        raise InvalidInput(
            f"bars must be what ktrdr.load_bars(...) returns, or several of them, got {value!r:.80}."
        )


def _leaves(bars: AnyBars) -> Iterator[Bars]:
    if isinstance(bars, Bars):
        yield bars
    else:
        _no_text(bars)
        for part in bars.values() if isinstance(bars, Mapping) else bars:
            yield from _leaves(part)


def _by_symbol(bars: AnyBars) -> dict[str, dict[Timeframe, Bars]]:
    found: dict[str, dict[Timeframe, Bars]] = {}
    for part in _leaves(bars):
        of_symbol = found.setdefault(part.symbol, {})
        if part.timeframe in of_symbol and of_symbol[part.timeframe] is not part:
            raise InvalidInput(
                f"Bars of {part.symbol} {part.timeframe} are given twice. Give them as one piece; start= and end= choose "
                "a range."
            )
        of_symbol[part.timeframe] = part
    if not found:
        raise InvalidInput("No bars are given. Load some: ktrdr.load_bars('SP500', '1d').")
    return found


def _of_one_symbol(bars: AnyBars, symbol: str | None, strategy: Strategy) -> dict[Timeframe, Bars]:
    given = _by_symbol(bars)
    if symbol is None and len(given) > 1:
        raise InvalidInput(
            f"Bars of {', '.join(given)} are given; say which one: symbol='{next(iter(given))}'."
        )
    name = next(iter(given)) if symbol is None else symbol
    if name not in given:
        raise NotFound("symbol among the bars", name, valid=given, hint=f"Given: {', '.join(given)}")
    return _with_timeframes(given[name], strategy.timeframes)


def _with_timeframes(given: dict[Timeframe, Bars], wanted: Iterable[Timeframe]) -> dict[Timeframe, Bars]:
    """The given bars and, where a wanted timeframe is absent, those made of the longest shorter one."""
    made = dict(given)
    for timeframe in wanted:
        finer = sorted((t for t in given if t.seconds < timeframe.seconds), key=lambda t: -t.seconds)
        source = next((t for t in finer if can_resample(given[t].calendar, t, timeframe)), None)
        if timeframe not in made and source is not None:
            made[timeframe] = resample(given[source], timeframe)
    return made


def _day(moment: Moment) -> str | date | None:
    """A moment as the day that a strategy document takes."""
    if moment is None or isinstance(moment, str | date):
        return moment
    return to_datetime(parse_time(moment))
