"""Each statistic beside a calculation by hand; then the fused pass against the plain functions."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from ktrdr.backtesting import statistics as st
from ktrdr.backtesting import statistics_of
from ktrdr.backtesting.moments import drawdown_of, moments_of
from ktrdr.backtesting.performance import STATISTICS, Account

# 100 -> 110 -> 99 -> 108.9 : returns +10 %, -10 %, +10 %
EQUITY = np.array([100.0, 110.0, 99.0, 108.9])
RETURNS = np.array([0.1, -0.1, 0.1])
NET = np.array([30.0, -10.0, 20.0, -20.0])


def test_returns_and_totals() -> None:
    np.testing.assert_allclose(st.returns_of(EQUITY), RETURNS, atol=1e-15)
    assert st.total_return(EQUITY) == pytest.approx(0.089)
    # three bars of a year with 6: squared growth
    assert st.annual_return(EQUITY, 6.0) == pytest.approx(1.089**2 - 1)
    # half a year by the calendar
    assert st.cagr(EQUITY, 365.25 / 2) == pytest.approx(1.089**2 - 1)


def test_volatility_and_sharpe() -> None:
    # mean 1/30; deviations 1/15, -2/15, 1/15: sum of squares 6/225, over 2: 3/225
    deviation = math.sqrt(3 / 225)
    assert st.volatility(RETURNS, 4.0) == pytest.approx(2 * deviation)
    assert st.sharpe_ratio(RETURNS, 4.0) == pytest.approx((1 / 30) / deviation * 2)
    # an annual rate of 1.01**4 - 1 is 1 % a bar
    assert st.sharpe_ratio(RETURNS, 4.0, 1.01**4 - 1) == pytest.approx((1 / 30 - 0.01) / deviation * 2)


def test_sharpe_grows_with_the_root_of_bars_per_year() -> None:
    hourly, daily = st.sharpe_ratio(RETURNS, 24 * 365.25), st.sharpe_ratio(RETURNS, 365.25)
    assert hourly / daily == pytest.approx(math.sqrt(24))


def test_sortino_divides_by_all_returns() -> None:
    # one shortfall of 0.1 among three: sqrt(0.01 / 3)
    assert st.sortino_ratio(RETURNS, 4.0) == pytest.approx((1 / 30) / math.sqrt(0.01 / 3) * 2)
    # minimum return 1 % a bar: shortfall 0.11
    expected = (1 / 30 - 0.01) / math.sqrt(0.11**2 / 3) * 2
    assert st.sortino_ratio(RETURNS, 4.0, 1.01**4 - 1) == pytest.approx(expected)


def test_drawdown_and_calmar() -> None:
    assert st.max_drawdown(EQUITY) == pytest.approx(-0.1)
    assert st.calmar_ratio(EQUITY, 6.0) == pytest.approx((1.089**2 - 1) / 0.1)
    assert st.max_drawdown(np.array([100.0, 80.0, 120.0, 90.0])) == pytest.approx(-0.25)


@pytest.mark.parametrize(
    ("equity", "bars"),
    [
        ([100, 110, 120], 0),
        ([100, 90, 100], 2),  # regained at the second bar after the peak
        ([100, 110, 99, 108, 110, 120], 3),
        ([100, 90, 80, 85], 3),  # never regained: to the end
        ([100, 100, 100], 0),  # level is not under water
        ([100, 90, 101, 80, 70, 60], 3),
    ],
)
def test_drawdown_duration(equity: list[int], bars: int) -> None:
    values = np.array(equity, dtype=float)
    assert st.max_drawdown_duration(values) == bars
    assert drawdown_of(values).duration_bars == bars


def test_omega() -> None:
    assert st.omega_ratio(RETURNS, 4.0) == pytest.approx(0.2 / 0.1)
    assert st.omega_ratio(RETURNS, 4.0, 1.01**4 - 1) == pytest.approx(0.18 / 0.11)


def test_trade_statistics() -> None:
    assert st.profit_factor(NET) == pytest.approx(50 / 30)
    assert st.expectancy(NET) == pytest.approx(5.0)
    assert st.win_rate(NET) == pytest.approx(0.5)
    # deviations 25, -15, 15, -25: squares 1700, over 3
    assert st.sqn(NET) == pytest.approx(2 * 5.0 / math.sqrt(1700 / 3))


def test_exposure_and_turnover() -> None:
    assert st.exposure(np.array([False, True, True, False])) == 0.5
    # 300 traded over 3 bars of a year with 6, mean equity 104.475
    assert st.turnover(300.0, EQUITY, 6.0) == pytest.approx(300 * 2 / 104.475)


def test_alpha_and_beta() -> None:
    benchmark = np.array([0.02, -0.01, 0.03])
    returns = 0.001 + 1.5 * benchmark
    assert st.beta(returns, benchmark) == pytest.approx(1.5)
    assert st.alpha(returns, benchmark, 252.0) == pytest.approx(0.252)
    # with rf per bar: r - rf = a + b (bm - rf) moves the intercept by rf (b - 1)
    rf = 0.0001
    assert st.alpha(returns, benchmark, 252.0, 1.0001**252 - 1) == pytest.approx(
        (0.001 + 0.5 * rf) * 252, rel=1e-9
    )


def test_probabilistic_sharpe_of_symmetric_returns() -> None:
    # -1, 0, 0, 1 scaled and shifted: skew 0, kurtosis mean(d^4) / mean(d^2)^2 = 0.5 / 0.25 = 2
    returns = 0.01 * np.array([-1.0, 0.0, 0.0, 1.0]) + 0.002
    sharpe = 0.002 / (0.01 * math.sqrt(2 / 3))
    z = sharpe * math.sqrt(3) / math.sqrt(1 + (2 - 1) / 4 * sharpe**2)
    assert st.probabilistic_sharpe_ratio(returns, 252.0) == pytest.approx(NormalDist().cdf(z))
    # as likely as not to beat its own Sharpe ratio
    own = sharpe * math.sqrt(252)
    assert st.probabilistic_sharpe_ratio(returns, 252.0, threshold=own) == pytest.approx(0.5)


def test_the_published_example_of_the_probabilistic_sharpe_ratio() -> None:
    # Bailey and Lopez de Prado 2012: monthly SR 0.458 over 24 months is above 0 with probability 0.982 if
    # returns are normal, but only 0.913 given skew -2.448 and kurtosis 10.164
    mean = 0.458 * math.sqrt(24 / 23)
    assert st.psr_from_moments(24, mean, 1.0, 0.0, 3.0, 0.0) == pytest.approx(0.982, abs=5e-4)
    assert st.psr_from_moments(24, mean, 1.0, -2.448, 10.164, 0.0) == pytest.approx(0.913, abs=5e-4)
    # moments that no sample has leave it undefined
    assert st.psr_from_moments(24, mean, 1.0, 9.0, 1.0, 0.0) is None


def test_undefined_is_none() -> None:
    flat, none = np.full(5, 100.0), np.array([])
    still = st.returns_of(flat)
    assert st.sharpe_ratio(still, 252.0) is None
    assert st.sortino_ratio(still, 252.0) is None
    assert st.sortino_ratio(none, 252.0) is None
    assert st.sharpe_ratio(none, 252.0) is None
    assert st.volatility(none, 252.0) is None
    assert st.calmar_ratio(flat, 252.0) is None
    assert st.omega_ratio(still, 252.0) is None
    assert st.beta(RETURNS, np.zeros(3)) is None
    assert st.alpha(RETURNS, np.zeros(3), 252.0) is None
    assert st.probabilistic_sharpe_ratio(still, 252.0) is None
    assert st.profit_factor(np.array([1.0])) is None
    assert st.expectancy(none) is None
    assert st.win_rate(none) is None
    assert st.sqn(np.array([1.0])) is None
    assert st.sqn(np.array([1.0, 1.0])) is None
    assert st.exposure(none) is None
    assert st.turnover(1.0, flat[:1], 252.0) is None
    assert st.total_return(none) is None
    assert st.max_drawdown(none) is None
    assert st.max_drawdown_duration(none) == 0
    assert st.annual_return(flat[:1], 252.0) is None
    assert st.annual_return(np.array([1.0, -1.0]), 252.0) is None
    assert st.annual_return(np.array([1.0, 1e9]), 1e9) is None  # beyond any float
    assert st.cagr(flat, 0.0) is None


def test_steady_growth_has_no_sharpe_ratio() -> None:
    growth = 100 * 1.001 ** np.arange(5_000)
    assert st.sharpe_ratio(st.returns_of(growth), 252.0) is None
    values = statistics_of(growth, growth, empty_account(), bars_per_year=252.0, days=1.0)
    assert values["sharpe_ratio"] is None
    assert values["volatility"] == pytest.approx(0.0, abs=1e-12)
    assert values["beta"] is None


def empty_account(net: np.ndarray | None = None) -> Account:
    net = np.array([]) if net is None else net
    return Account(net, np.ones(len(net), dtype=np.int64), 3, 5_000.0, 7.0, 2.0)


@settings(max_examples=60, deadline=None)
@given(
    seed=hs.integers(0, 10_000),
    n=hs.sampled_from([2, 3, 15, 17, 1023, 1025, 2049, 5_000]),
    drift=hs.sampled_from([-0.002, 0.0, 0.002]),
    tails=hs.booleans(),
    rates=hs.sampled_from([(0.0, 0.0), (0.03, 0.05)]),
)
def test_one_pass_equals_the_plain_functions(seed, n, drift, tails, rates) -> None:
    rng = np.random.default_rng(seed)
    moves = rng.standard_t(3, n) * 0.005 if tails else rng.normal(0, 0.01, n)
    equity = 1e5 * np.exp(np.cumsum(drift + moves))
    close = 50 * np.exp(np.cumsum(0.5 * moves + rng.normal(0, 0.004, n)))
    r, b, year = st.returns_of(equity), st.returns_of(close), 6_261.3
    rf, mar = rates
    net = rng.normal(10, 100, n % 7)
    account = empty_account(net)
    values = statistics_of(
        equity, close, account, bars_per_year=year, days=float(n), risk_free_rate=rf, minimum_return=mar
    )
    expected = {
        "total_return": st.total_return(equity),
        "annual_return": st.annual_return(equity, year),
        "cagr": st.cagr(equity, float(n)),
        "volatility": st.volatility(r, year),
        "sharpe_ratio": st.sharpe_ratio(r, year, rf),
        "sortino_ratio": st.sortino_ratio(r, year, mar),
        "max_drawdown": st.max_drawdown(equity),
        "max_drawdown_duration": st.max_drawdown_duration(equity),
        "calmar_ratio": st.calmar_ratio(equity, year),
        "omega_ratio": st.omega_ratio(r, year, mar),
        "probabilistic_sharpe_ratio": st.probabilistic_sharpe_ratio(r, year, risk_free_rate=rf),
        "alpha": st.alpha(r, b, year, rf),
        "beta": st.beta(r, b),
        "turnover": st.turnover(5_000.0, equity, year),
        "profit_factor": st.profit_factor(net),
        "sqn": st.sqn(net),
    }
    for name, value in expected.items():
        found = values[name]
        assert (found is None) == (value is None), name
        if value is not None:
            assert found == pytest.approx(value, rel=1e-9, abs=1e-12), name
    assert tuple(values) == STATISTICS


def test_moments_lose_no_digits_on_a_steep_curve() -> None:
    equity = 100 * np.exp(np.cumsum(0.05 + 1e-9 * np.random.default_rng(1).normal(size=1_000)))
    r = st.returns_of(equity)
    moments = moments_of(equity, equity, 0.0)
    assert moments.mean == pytest.approx(float(np.mean(r)), rel=1e-12)
    assert math.sqrt(moments.m2) == pytest.approx(float(np.std(r)), rel=1e-6)


def test_without_a_year_only_annual_figures_are_missing() -> None:
    values = statistics_of(EQUITY, EQUITY, empty_account(NET), bars_per_year=None, days=10.0)
    missing = {name for name, value in values.items() if value is None}
    assert missing == {
        *("annual_return", "volatility", "sharpe_ratio", "sortino_ratio", "calmar_ratio", "alpha"),
        *("probabilistic_sharpe_ratio", "turnover", "bars_per_year"),
    }
    assert values["average_win"] == 25.0
    assert values["average_loss"] == -15.0
    assert values["best_trade"] == 30.0
    assert values["worst_trade"] == -20.0
    assert values["omega_ratio"] == pytest.approx(2.0)


def test_lost_capital_leaves_ratios_undefined() -> None:
    equity = np.array([100.0, 50.0, -10.0, -10.0])
    values = statistics_of(
        equity, np.array([1.0, 2.0, 3.0, 4.0]), empty_account(), bars_per_year=252.0, days=3.0
    )
    assert values["total_return"] == pytest.approx(-1.1)
    assert values["max_drawdown"] == pytest.approx(-1.1)
    for name in ("annual_return", "cagr", "sharpe_ratio", "sortino_ratio", "beta", "alpha", "win_rate"):
        assert values[name] is None, name


def test_extremes_in_blocks_and_at_their_borders() -> None:
    rng = np.random.default_rng(5)
    for n in (1, 2, 16, 17, 1024, 1025, 1040, 4_000):
        for drift in (-0.001, 0.001):
            equity = np.exp(np.cumsum(rng.normal(drift, 0.01, n)))
            found = drawdown_of(equity)
            assert found.depth == pytest.approx(st.max_drawdown(equity), abs=1e-15)
            assert found.duration_bars == st.max_drawdown_duration(equity)
            assert found.lowest == equity.min()
