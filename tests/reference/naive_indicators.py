"""Indicators written from the textbook formula, one bar after the other, with plain Python numbers.

Slow on purpose and free of TA-Lib and NumPy. Every function takes lists and gives {output: list}; NaN stands where
the value is not defined yet. Seeding follows TA-Lib, whose choice is stated in each docstring.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

NAN = math.nan
Series = list[float]
Outputs = dict[str, Series]


@dataclass(frozen=True)
class Candles:
    open: Series
    high: Series
    low: Series
    close: Series
    volume: Series


def _mean(values: Series) -> float:
    return math.fsum(values) / len(values)


def _sma(values: Series, n: int) -> Series:
    return [
        NAN if t < n - 1 or math.isnan(values[t - n + 1]) else _mean(values[t - n + 1 : t + 1])
        for t in range(len(values))
    ]


def _ema_from(values: Series, n: int, seed_at: int) -> Series:
    """EMA whose first value, at ``seed_at``, is the mean of the n values ending there."""
    out = [NAN] * len(values)
    if seed_at >= len(values):
        return out
    out[seed_at] = _mean(values[seed_at - n + 1 : seed_at + 1])
    for t in range(seed_at + 1, len(values)):
        out[t] = out[t - 1] + 2.0 / (n + 1) * (values[t] - out[t - 1])
    return out


def sma(c: Candles, period: int = 20) -> Outputs:
    return {"sma": _sma(c.close, period)}


def ema(c: Candles, period: int = 20) -> Outputs:
    return {"ema": _ema_from(c.close, period, period - 1)}


def macd(c: Candles, fast: int = 12, slow: int = 26, signal: int = 9) -> Outputs:
    """Both EMAs are seeded at row slow-1; nothing is shown before the signal line exists."""
    quick = _ema_from(c.close, fast, slow - 1)
    steady = _ema_from(c.close, slow, slow - 1)
    line = [a - b for a, b in zip(quick, steady, strict=True)]
    first = slow + signal - 2
    trigger = _ema_from(line, signal, first)
    line = [NAN if t < first else v for t, v in enumerate(line)]
    return {"macd": line, "signal": trigger, "histogram": [a - b for a, b in zip(line, trigger, strict=True)]}


def rsi(c: Candles, period: int = 14) -> Outputs:
    """Wilder's means are seeded with the plain mean of the first ``period`` changes; nothing moved = 50."""
    n, out = period, [NAN] * len(c.close)
    moves = [b - a for a, b in zip(c.close, c.close[1:], strict=False)]
    if len(moves) < n:
        return {"rsi": out}
    up = _mean([max(m, 0.0) for m in moves[:n]])
    down = _mean([max(-m, 0.0) for m in moves[:n]])
    out[n] = 50.0 if up + down == 0.0 else 100.0 * up / (up + down)
    for t in range(n + 1, len(c.close)):
        up = (up * (n - 1) + max(moves[t - 1], 0.0)) / n
        down = (down * (n - 1) + max(-moves[t - 1], 0.0)) / n
        out[t] = 50.0 if up + down == 0.0 else 100.0 * up / (up + down)
    return {"rsi": out}


def roc(c: Candles, period: int = 10) -> Outputs:
    x = c.close
    return {
        "roc": [NAN if t < period else 100.0 * (x[t] - x[t - period]) / x[t - period] for t in range(len(x))]
    }


def _typical(c: Candles) -> Series:
    return [(h + low + x) / 3.0 for h, low, x in zip(c.high, c.low, c.close, strict=True)]


def cci(c: Candles, period: int = 20) -> Outputs:
    typical, out = _typical(c), []
    for t in range(len(typical)):
        window = typical[max(0, t - period + 1) : t + 1]
        if len(window) < period:
            out.append(NAN)
            continue
        center = _mean(window)
        spread = _mean([abs(v - center) for v in window])
        out.append(0.0 if min(window) == max(window) else (typical[t] - center) / (0.015 * spread))
    return {"cci": out}


def _place_in_range(c: Candles, period: int, undefined: float) -> Series:
    """Where the close lies between the lowest low (0) and the highest high (1) of the last ``period`` bars."""
    out = []
    for t in range(len(c.close)):
        if t < period - 1:
            out.append(NAN)
            continue
        top, bottom = max(c.high[t - period + 1 : t + 1]), min(c.low[t - period + 1 : t + 1])
        out.append(undefined if top == bottom else (c.close[t] - bottom) / (top - bottom))
    return out


def stochastic(c: Candles, period: int = 14, smooth_k: int = 3, smooth_d: int = 3) -> Outputs:
    k = _sma([100.0 * v for v in _place_in_range(c, period, 0.5)], smooth_k)
    d = _sma(k, smooth_d)
    return {"k": [NAN if math.isnan(b) else a for a, b in zip(k, d, strict=True)], "d": d}


def williams_r(c: Candles, period: int = 14) -> Outputs:
    return {"williams_r": [100.0 * (v - 1.0) for v in _place_in_range(c, period, 0.5)]}


def _true_range(c: Candles) -> Series:
    out = [NAN]
    for t in range(1, len(c.close)):
        before = c.close[t - 1]
        out.append(max(c.high[t] - c.low[t], abs(c.high[t] - before), abs(c.low[t] - before)))
    return out


def atr(c: Candles, period: int = 14) -> Outputs:
    """Seeded at row ``period`` with the mean of the first ``period`` true ranges (there is none at row 0)."""
    tr, out = _true_range(c), [NAN] * len(c.close)
    if len(tr) <= period:
        return {"atr": out}
    out[period] = _mean(tr[1 : period + 1])
    for t in range(period + 1, len(tr)):
        out[t] = (out[t - 1] * (period - 1) + tr[t]) / period
    return {"atr": out}


def adx(c: Candles, period: int = 14) -> Outputs:
    """Wilder's running sums start with the first period-1 bars; DX is averaged from row ``period`` on."""
    n, rows = period, len(c.close)
    out: Outputs = {name: [NAN] * rows for name in ("adx", "plus_di", "minus_di")}
    tr = _true_range(c)
    sum_tr = sum_plus = sum_minus = 0.0
    directional: Series = []
    smooth = NAN
    for t in range(1, rows):
        rise, fall = c.high[t] - c.high[t - 1], c.low[t - 1] - c.low[t]
        plus = rise if rise > fall and rise > 0.0 else 0.0
        minus = fall if fall > rise and fall > 0.0 else 0.0
        keep = 1.0 if t < n else (n - 1) / n
        sum_tr, sum_plus, sum_minus = sum_tr * keep + tr[t], sum_plus * keep + plus, sum_minus * keep + minus
        if t < n:
            continue
        plus_di, minus_di = (100.0 * s / sum_tr if sum_tr else 0.0 for s in (sum_plus, sum_minus))
        total = plus_di + minus_di
        dx = 100.0 * abs(plus_di - minus_di) / total if total else NAN
        if t < 2 * n:
            directional.append(0.0 if math.isnan(dx) else dx)
            smooth = math.fsum(directional) / n
        elif not math.isnan(dx):
            smooth = (smooth * (n - 1) + dx) / n
        if t >= 2 * n - 1:
            out["adx"][t], out["plus_di"][t], out["minus_di"][t] = smooth, plus_di, minus_di
    return out


def bollinger(c: Candles, period: int = 20, deviations: float = 2.0) -> Outputs:
    """Population standard deviation; a window without movement has no width and the price in its middle."""
    names = ("upper", "middle", "lower", "percent_b", "bandwidth")
    out: Outputs = {name: [] for name in names}
    for t in range(len(c.close)):
        window = c.close[max(0, t - period + 1) : t + 1]
        if len(window) < period:
            row = (NAN,) * 5
        elif min(window) == max(window):
            row = (window[0], window[0], window[0], 0.5, 0.0)
        else:
            middle = _mean(window)
            width = deviations * math.sqrt(_mean([(v - middle) ** 2 for v in window]))
            upper, lower = middle + width, middle - width
            row = (upper, middle, lower, (c.close[t] - lower) / (upper - lower), (upper - lower) / middle)
        for name, value in zip(names, row, strict=True):
            out[name].append(value)
    return out


def obv(c: Candles) -> Outputs:
    out = [c.volume[0]]
    for t in range(1, len(c.close)):
        sign = (c.close[t] > c.close[t - 1]) - (c.close[t] < c.close[t - 1])
        out.append(out[-1] + sign * c.volume[t])
    return {"obv": out}


def mfi(c: Candles, period: int = 14) -> Outputs:
    typical, out = _typical(c), [NAN] * len(c.close)
    for t in range(period, len(typical)):
        up = down = 0.0
        for s in range(t - period + 1, t + 1):
            flow = typical[s] * c.volume[s]
            up += flow if typical[s] > typical[s - 1] else 0.0
            down += flow if typical[s] < typical[s - 1] else 0.0
        out[t] = 50.0 if up + down == 0.0 else 100.0 * up / (up + down)
    return {"mfi": out}


NAIVE: dict[str, Callable[..., Outputs]] = {
    f.__name__: f
    for f in (sma, ema, macd, rsi, roc, cci, stochastic, williams_r, atr, adx, bollinger, obv, mfi)
}
