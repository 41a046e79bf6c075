from __future__ import annotations

import json
import math

import pytest

from ktrdr.backtesting.config import Costs, PositionRules, SimulationConfig, Sizing, Stops
from ktrdr.errors import InvalidInput


def test_defaults_are_valid_and_round_trip_through_json() -> None:
    config = SimulationConfig(
        sizing=Sizing(type="risk", risk=0.01, lot_step=0.0),
        costs=Costs(commission=0.001, slippage_bps=2.0, spread="quotes"),
        stops=Stops(stop_loss_atr=2.0, max_holding_bars=10),
        positions=PositionRules(allow_short_from_flat=True, reversal="close_then_open"),
        at_end="hold",
    )
    assert SimulationConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert SimulationConfig.from_json({}) == SimulationConfig()


@pytest.mark.parametrize(
    ("make", "pointer", "words"),
    [
        (lambda: Sizing(fraction=1.5), "/sizing/fraction", "<= 1"),
        (lambda: Sizing(fraction=0.0), "/sizing/fraction", "> 0"),
        (lambda: Sizing(type="unit"), "/sizing/type", "did you mean 'units'"),
        (lambda: Sizing(type="cash"), "/sizing/cash", "is required"),
        (lambda: Sizing(lot_step=-1), "/sizing/lot_step", ">= 0"),
        (lambda: Costs(commission=1.0), "/costs/commission", "< 1"),
        (lambda: Costs(commission_fixed=math.nan), "/costs/commission_fixed", "finite"),
        (lambda: Costs(slippage=0.1, slippage_bps=1), "/costs/slippage_bps", "give one"),
        (lambda: Stops(stop_loss=1.0), "/stops/stop_loss", "< 1"),
        (lambda: Stops(max_holding_bars=2.5), "/stops/max_holding_bars", "whole number"),
        (lambda: Stops(atr_period=True), "/stops/atr_period", "whole number"),
        (lambda: PositionRules(position_awareness="yes"), "/positions/position_awareness", "true or false"),
        (
            lambda: PositionRules(min_signal_separation_bars=-1),
            "/positions/min_signal_separation_bars",
            ">= 0",
        ),
        (lambda: SimulationConfig(initial_capital=0), "/initial_capital", "> 0"),
        (lambda: SimulationConfig(at_end="keep"), "/at_end", "close, hold"),
        (lambda: SimulationConfig(sizing=Sizing(type="risk", risk=0.1)), "/sizing", "needs a stop loss"),
    ],
)
def test_faults_name_the_place_and_what_is_accepted(make, pointer, words) -> None:
    with pytest.raises(InvalidInput) as caught:
        make()
    (error,) = caught.value.errors
    assert error.pointer == pointer
    assert words in error.message


def test_every_fault_is_reported_at_once() -> None:
    with pytest.raises(InvalidInput, match="2 faults") as caught:
        Costs(commission=-1, slippage=-1)
    assert len(caught.value.errors) == 2


def test_unknown_keys_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(InvalidInput, match="did you mean 'commission'"):
        SimulationConfig.from_json({"costs": {"comission": 0.1}})
    with pytest.raises(InvalidInput, match="did you mean 'initial_capital'"):
        SimulationConfig.from_json({"inital_capital": 1})
    with pytest.raises(InvalidInput, match="must be a mapping"):
        SimulationConfig.from_json({"costs": 3})


def test_slippage_is_one_rate_however_given() -> None:
    assert Costs(slippage_bps=5).slippage_rate == pytest.approx(Costs(slippage=0.0005).slippage_rate)
    assert Stops(trailing_stop_atr=1).uses_atr
    assert not Stops(stop_loss=0.1).uses_atr
