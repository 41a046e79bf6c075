"""The statistics of an equity curve and of its trades, as pure functions.

Legend: ``E_T`` equity at each close, the first being the initial capital; ``r`` the T-1 per-bar simple returns
``E[t] / E[t-1] - 1``; ``A`` bars per year, from the calendar of the timeframe; ``net_N`` the net profits of N
closed trades. Annual rates become per-bar rates by ``(1 + rate) ** (1 / A) - 1``. What is undefined (no
trades, no variance, no losses, equity that reached zero) is None, never 0 or a large number.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ktrdr.bars import FloatArray

__all__ = [
    "alpha",
    "annual_return",
    "beta",
    "cagr",
    "calmar_ratio",
    "expectancy",
    "exposure",
    "max_drawdown",
    "max_drawdown_duration",
    "omega_ratio",
    "per_bar_rate",
    "probabilistic_sharpe_ratio",
    "profit_factor",
    "returns_of",
    "sharpe_ratio",
    "sortino_ratio",
    "sqn",
    "total_return",
    "turnover",
    "volatility",
    "win_rate",
]

NOISE = 1e-14  # a standard deviation of simple returns below this is rounding, not variation


def per_bar_rate(annual_rate: float, bars_per_year: float) -> float:
    """The rate per bar that compounds to ``annual_rate`` in a year."""
    return math.expm1(math.log1p(annual_rate) / bars_per_year)


def returns_of(equity_T: FloatArray) -> FloatArray:
    """(T-1,) simple returns ``E[t] / E[t-1] - 1``."""
    result: FloatArray = equity_T[1:] / equity_T[:-1] - 1.0
    return result


def total_return(equity_T: FloatArray) -> float | None:
    """``E[-1] / E[0] - 1``."""
    return float(equity_T[-1] / equity_T[0] - 1.0) if len(equity_T) else None


def compounded(growth: float, periods: float) -> float | None:
    """``growth ** periods - 1``; None if growth is not positive or the power is beyond a float."""
    if growth <= 0.0 or not math.isfinite(periods):
        return None
    exponent = math.log(growth) * periods
    return math.expm1(exponent) if exponent < 700.0 else None


def annual_return(equity_T: FloatArray, bars_per_year: float) -> float | None:
    """Geometric mean return per year of trading time: ``(E[-1] / E[0]) ** (A / n) - 1`` over n returns."""
    n = len(equity_T) - 1
    return compounded(equity_T[-1] / equity_T[0], bars_per_year / n) if n > 0 else None


def cagr(equity_T: FloatArray, days: float) -> float | None:
    """Compound annual growth rate by calendar time: ``(E[-1] / E[0]) ** (365.25 / days) - 1``."""
    return compounded(equity_T[-1] / equity_T[0], 365.25 / days) if days > 0 and len(equity_T) else None


def volatility(returns: FloatArray, bars_per_year: float) -> float | None:
    """``std(r, ddof=1) * sqrt(A)``; None below 2 returns."""
    return float(np.std(returns, ddof=1) * math.sqrt(bars_per_year)) if len(returns) > 1 else None


def sharpe_ratio(returns: FloatArray, bars_per_year: float, risk_free_rate: float = 0.0) -> float | None:
    """Mean over standard deviation of excess returns, annualised by ``sqrt(A)``.

    ``mean(r - rf) / std(r - rf, ddof=1) * sqrt(A)``, rf per bar.

    References
    ----------
    W. F. Sharpe, "The Sharpe Ratio", Journal of Portfolio Management 21(1), 1994, equations 3-6.
    """
    if len(returns) < 2:
        return None
    deviation = float(np.std(returns, ddof=1))
    excess = float(np.mean(returns)) - per_bar_rate(risk_free_rate, bars_per_year)
    return excess / deviation * math.sqrt(bars_per_year) if deviation > NOISE else None


def sortino_ratio(returns: FloatArray, bars_per_year: float, minimum_return: float = 0.0) -> float | None:
    """Mean excess over the minimum acceptable return, over downside deviation, annualised.

    ``mean(r - mar) * A / (sqrt(mean(min(r - mar, 0) ** 2)) * sqrt(A))``; the mean of squares runs over all n
    returns, not over the negative ones.

    References
    ----------
    F. A. Sortino and L. N. Price, "Performance Measurement in a Downside Risk Framework", Journal of
    Investing 3(3), 1994.
    """
    if len(returns) < 1:
        return None
    excess = returns - per_bar_rate(minimum_return, bars_per_year)
    downside = math.sqrt(float(np.mean(np.minimum(excess, 0.0) ** 2)))
    return float(np.mean(excess)) / downside * math.sqrt(bars_per_year) if downside > NOISE else None


def max_drawdown(equity_T: FloatArray) -> float | None:
    """The deepest fall from a running peak, as a rate <= 0: ``min(E / cummax(E) - 1)``, start included.

    References
    ----------
    M. Magdon-Ismail and A. Atiya, "Maximum Drawdown", Risk 17(10), 2004.
    """
    if not len(equity_T):
        return None
    return float(np.min(equity_T / np.maximum.accumulate(equity_T) - 1.0))


def max_drawdown_duration(equity_T: FloatArray) -> int:
    """The most bars from a peak to the bar that regains it, or to the end if none does."""
    peaks = np.flatnonzero(equity_T >= np.maximum.accumulate(equity_T))
    if not len(peaks):
        return 0
    gaps = np.diff(np.append(peaks, len(equity_T) - 1))
    # neighbouring peaks are a rise, not a drawdown
    closed = gaps[:-1][gaps[:-1] > 1]
    return int(max(closed.max(initial=0), gaps[-1]))


def calmar_ratio(equity_T: FloatArray, bars_per_year: float) -> float | None:
    """Annual return over the depth of the maximum drawdown.

    References
    ----------
    T. W. Young, "Calmar Ratio: A Smoother Tool", Futures 20(1), 1991.
    """
    return ratio(annual_return(equity_T, bars_per_year), -(max_drawdown(equity_T) or 0.0))


def omega_ratio(returns: FloatArray, bars_per_year: float, minimum_return: float = 0.0) -> float | None:
    """Sum of gains above the minimum return over sum of shortfalls below it.

    References
    ----------
    C. Keating and W. F. Shadwick, "A Universal Performance Measure", Journal of Performance Measurement 6(3),
    2002.
    """
    excess = returns - per_bar_rate(minimum_return, bars_per_year)
    return ratio(float(np.sum(np.maximum(excess, 0.0))), float(-np.sum(np.minimum(excess, 0.0))))


def profit_factor(net_N: FloatArray) -> float | None:
    """Sum of the winning trades over the sum of the losing ones, net of costs; None without a loss.

    References
    ----------
    V. K. Tharp, "Trade Your Way to Financial Freedom", 2nd edition, 2007, glossary.
    """
    return ratio(float(net_N[net_N > 0].sum()), float(-net_N[net_N < 0].sum()))


def expectancy(net_N: FloatArray) -> float | None:
    """Mean net profit per closed trade, in money."""
    return float(np.mean(net_N)) if len(net_N) else None


def win_rate(net_N: FloatArray) -> float | None:
    """Share of closed trades with a net profit above 0."""
    return float(np.mean(net_N > 0)) if len(net_N) else None


def sqn(net_N: FloatArray) -> float | None:
    """System quality number: ``sqrt(N) * mean(net) / std(net, ddof=1)``.

    References
    ----------
    V. K. Tharp, "The Definitive Guide to Position Sizing", 2008, chapter 2.
    """
    if len(net_N) < 2:
        return None
    mean, deviation = float(np.mean(net_N)), float(np.std(net_N, ddof=1))
    return math.sqrt(len(net_N)) * mean / deviation if deviation > 1e-12 * abs(mean) else None


def exposure(held_T: npt.NDArray[np.bool_]) -> float | None:
    """Share of bars at whose close a position was open."""
    return float(np.mean(held_T)) if len(held_T) else None


def turnover(traded_value: float, equity_T: FloatArray, bars_per_year: float) -> float | None:
    """Value bought and sold per year, in multiples of the mean equity."""
    n = len(equity_T) - 1
    return ratio(traded_value * bars_per_year, float(np.mean(equity_T)) * n) if n > 0 else None


def beta(returns: FloatArray, benchmark_returns: FloatArray) -> float | None:
    """Slope of the returns on the benchmark's: ``cov(r, b) / var(b)``.

    References
    ----------
    W. F. Sharpe, "Capital Asset Prices", Journal of Finance 19(3), 1964.
    """
    if len(returns) < 2 or float(np.std(benchmark_returns)) <= NOISE:
        return None
    b = benchmark_returns - np.mean(benchmark_returns)
    return float(np.sum(b * (returns - np.mean(returns))) / np.sum(b * b))


def alpha(
    returns: FloatArray,
    benchmark_returns: FloatArray,
    bars_per_year: float,
    risk_free_rate: float = 0.0,
) -> float | None:
    """Intercept of the same regression on excess returns, times A.

    ``(mean(r - rf) - beta * mean(b - rf)) * A``

    References
    ----------
    M. C. Jensen, "The Performance of Mutual Funds in the Period 1945-1964", Journal of Finance 23(2), 1968.
    """
    slope = beta(returns, benchmark_returns)
    if slope is None:
        return None
    rf = per_bar_rate(risk_free_rate, bars_per_year)
    excess = float(np.mean(returns)) - rf
    return (excess - slope * (float(np.mean(benchmark_returns)) - rf)) * bars_per_year


def probabilistic_sharpe_ratio(
    returns: FloatArray, bars_per_year: float, *, risk_free_rate: float = 0.0, threshold: float = 0.0
) -> float | None:
    """Probability that the true Sharpe ratio exceeds ``threshold`` (annual), given skew and tails.

    ``Phi((SR - SR*) sqrt(n - 1) / sqrt(1 - g3 SR + (g4 - 1) / 4 SR ** 2))`` with per-bar SR (ddof=1),
    population skewness g3 and plain (not excess) kurtosis g4.

    References
    ----------
    D. H. Bailey and M. Lopez de Prado, "The Sharpe Ratio Efficient Frontier", Journal of Risk 15(2), 2012,
    equation 11.
    """
    n = len(returns)
    if n < 2 or float(np.std(returns, ddof=1)) <= NOISE:
        return None
    d = returns - np.mean(returns)
    m2, m3, m4 = (float(np.mean(d**k)) for k in (2, 3, 4))
    mean = float(np.mean(returns)) - per_bar_rate(risk_free_rate, bars_per_year)
    return psr_from_moments(n, mean, m2, m3, m4, threshold / math.sqrt(bars_per_year))


def psr_from_moments(n: int, mean: float, m2: float, m3: float, m4: float, threshold: float) -> float | None:
    """The probabilistic Sharpe ratio of n returns from population moments; ``threshold`` is per bar."""
    sharpe = mean / math.sqrt(m2 * n / (n - 1))
    variance = 1.0 - m3 / m2**1.5 * sharpe + (m4 / m2**2 - 1.0) / 4.0 * sharpe**2
    if variance <= 0.0:
        return None
    z = (sharpe - threshold) * math.sqrt(n - 1) / math.sqrt(variance)
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def ratio(above: float | None, below: float | None) -> float | None:
    """``above / below``; None where either is missing or ``below`` is 0."""
    return above / below if above is not None and below else None
