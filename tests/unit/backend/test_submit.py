"""The submit path: what is wrong is said at once and nothing is recorded; what is right is resolved."""

from __future__ import annotations

from typing import Any

import pytest

from ktrdr.protocol.specs import BacktestSpec, TrainingSpec
from ktrdr.strategies import StrategyLibrary, example_root
from support.control_plane import ControlPlane, calm
from support.models import add_model
from support.strategies import edited

BACKTEST, TRAIN = "/api/v1/backtests/start", "/api/v1/trainings/start"


async def _refused(plane: ControlPlane, path: str, body: Any, status: int) -> dict:
    answer = await plane.ask("POST", path, body)
    assert answer.status == status, answer.body
    assert (await plane.api("GET", "/operations"))["total"] == 0
    return answer.json()


async def _spec(plane: ControlPlane, operation_id: str) -> dict:
    return (await plane.api("GET", f"/operations/{operation_id}/spec"))["spec"]


# --- trainings ------------------------------------------------------------------------------------------------------


async def test_a_training_is_resolved_recorded_and_started(stocked: ControlPlane) -> None:
    answer = await stocked.ask("POST", TRAIN, {"strategy_name": "sp500_trend", "seed": 7})
    started = answer.json()
    name = started["operation_id"]
    assert (answer.status, answer.headers["location"]) == (202, f"/api/v1/operations/{name}")
    assert (started["status"], started["operation_status"]) == ("started", "assigned")
    await stocked.until(name, "running")
    spec = TrainingSpec.model_validate(await _spec(stocked, name))
    assert (spec.symbols, spec.timeframes, spec.seed) == (["SP500"], ["1d"], 7)
    assert (spec.start_date, spec.end_date) == ("1999-01-01", "2012-12-31")
    (data,) = spec.datasets
    shown = await stocked.api("GET", "/data/SP500/1d")
    assert data.manifest == shown["manifest"]
    assert stocked.workers["t1"].starts[0].spec == spec


async def test_overrides_are_written_into_the_document(stocked: ControlPlane) -> None:
    body = {
        "strategy_name": "neuro_mean_reversion",
        "timeframes": ["1d"],
        "start_date": "2017-02-01",
        "end_date": "2017-12-31",
    }
    started = await stocked.api("POST", "/training/start", body)
    spec = TrainingSpec.model_validate(await _spec(stocked, started["operation_id"]))
    assert (spec.timeframes, spec.datasets[0].timeframe) == (["1d"], "1d")
    assert (spec.start_date, spec.end_date) == ("2017-02-01", "2017-12-31")
    hourly = await stocked.api("GET", "/data/EURUSD/1h")
    assert spec.datasets[0].manifest == hourly["manifest"]  # resampled from what there is


async def test_several_symbols_and_timeframes_name_a_dataset_each(stocked: ControlPlane) -> None:
    two = await stocked.api("POST", "/trainings/start", {"strategy_name": "us_indices_two_symbols"})
    spec = TrainingSpec.model_validate(await _spec(stocked, two["operation_id"]))
    assert [(d.symbol, d.timeframe) for d in spec.datasets] == [(s, "1d") for s in spec.symbols]
    two = await stocked.api("POST", "/trainings/start", {"strategy_name": "eurusd_two_timeframes"})
    spec = TrainingSpec.model_validate(await _spec(stocked, two["operation_id"]))
    assert [d.timeframe for d in spec.datasets] == spec.timeframes == ["1h", "1d"]


async def test_an_invalid_strategy_lists_its_faults_with_lines(stocked: ControlPlane) -> None:
    text = StrategyLibrary([example_root()]).text("sp500_trend").replace("indicators:", "indicaters:", 1)
    problem = await _refused(stocked, TRAIN, {"strategy": text}, 422)
    assert problem["type"] == "urn:ktrdr:problem:invalid-strategy"
    assert any("indicators" in e["message"] for e in problem["errors"])
    assert all(e.get("line") for e in problem["errors"] if e["pointer"] == "/indicaters")


async def test_no_strategy_or_two_are_refused(stocked: ControlPlane) -> None:
    assert "names no strategy" in (await _refused(stocked, TRAIN, {}, 422))["detail"]
    body = {"strategy_name": "sp500_trend", "strategy": "x"}
    problem = await _refused(stocked, TRAIN, body, 422)
    assert {e["pointer"] for e in problem["errors"]} == {"/strategy", "/strategy_name"}


async def test_a_misspelt_strategy_gets_the_nearest_name(stocked: ControlPlane) -> None:
    problem = await _refused(stocked, TRAIN, {"strategy_name": "sp500_trent"}, 404)
    assert "did you mean 'sp500_trend'?" in problem["detail"]


@pytest.mark.parametrize(
    "path",
    ["../secret.yaml", "/etc/passwd", "a/b/c.yaml", "sp500_trend", "..\\..\\x.yaml", "strategies/../x.yaml"],
)
async def test_paths_outside_the_strategy_folders_are_refused(stocked: ControlPlane, path: str) -> None:
    problem = await _refused(stocked, TRAIN, {"strategy_config_path": path}, 422)
    assert path in problem["detail"]


@pytest.mark.parametrize("path", ["sp500_trend.yaml", "strategies/sp500_trend.yaml"])
async def test_paths_inside_are_names(stocked: ControlPlane, path: str) -> None:
    started = await stocked.api("POST", "/trainings/start", {"strategy_config_path": path})
    assert (await _spec(stocked, started["operation_id"]))["strategy_name"] == "sp500_trend"


async def test_an_absent_symbol_says_how_to_import(stocked: ControlPlane) -> None:
    problem = await _refused(stocked, TRAIN, {"strategy_name": "sp500_trend", "symbols": ["SP501"]}, 404)
    assert "ktrdr data import FILE --symbol SP501" in problem["detail"]


async def test_too_few_bars_to_train_gives_both_numbers(stocked: ControlPlane) -> None:
    body = {"strategy_name": "sp500_trend", "start_date": "2010-01-01", "end_date": "2010-01-20"}
    problem = await _refused(stocked, TRAIN, body, 422)
    assert problem["type"] == "urn:ktrdr:problem:too-few-bars"
    assert "has 12 bars" in problem["detail"]
    assert "at least 30" in problem["detail"]


async def test_gpu_wishes_are_kept(stocked: ControlPlane) -> None:
    body = {"strategy_name": "sp500_trend", "require_gpu": True}
    problem = await _refused(stocked, TRAIN, body, 503)
    assert "No training workers with a GPU available" in problem["detail"]
    await stocked.join("g1", "training", gpu=True)
    started = await stocked.api("POST", "/trainings/start", body)
    await stocked.until(started["operation_id"], "running")
    assert (await stocked.store.get(started["operation_id"])).worker_id == "g1"


async def test_a_training_goes_to_the_gpu_first(stocked: ControlPlane) -> None:
    await stocked.join("g1", "training", gpu=True)
    for expected in ("g1", "t1"):
        started = await stocked.api("POST", "/trainings/start", {"strategy_name": "sp500_trend"})
        await stocked.until(started["operation_id"], "running")
        assert (await stocked.store.get(started["operation_id"])).worker_id == expected


# --- backtests ------------------------------------------------------------------------------------------------------


async def test_a_backtest_is_resolved_with_the_newest_model(stocked: ControlPlane) -> None:
    model = await add_model(stocked)
    body = {
        "strategy_name": "sp500_trend",
        "start_date": "2013-01-01",
        "commission": 0.001,
        "initial_capital": 5000,
    }
    started = await stocked.api("POST", "/backtests/start", body)
    spec = BacktestSpec.model_validate(await _spec(stocked, started["operation_id"]))
    assert (spec.model, spec.model_id) == (model.bundle_digest, model.model_id)
    assert (spec.symbol, spec.timeframe, spec.start_date) == ("SP500", "1d", "2013-01-01")
    assert (spec.commission, spec.initial_capital, spec.slippage) == (0.001, 5000.0, None)
    await stocked.until(started["operation_id"], "running")


async def test_a_model_alone_brings_its_strategy(stocked: ControlPlane) -> None:
    model = await add_model(stocked)
    for body in ({"model_id": model.model_id}, {"model_path": model.model_id}):
        started = await stocked.api("POST", "/backtests/start", body | {"symbol": "NASDAQ"})
        spec = await _spec(stocked, started["operation_id"])
        assert (spec["strategy_name"], spec["symbol"]) == ("sp500_trend", "NASDAQ")


async def test_without_a_model_it_says_how_to_train(stocked: ControlPlane) -> None:
    problem = await _refused(stocked, BACKTEST, {"strategy_name": "sp500_trend"}, 404)
    assert "ktrdr models train --strategy sp500_trend" in problem["detail"]


async def test_an_unknown_model_gets_the_nearest_id(stocked: ControlPlane) -> None:
    model = await add_model(stocked)
    problem = await _refused(stocked, BACKTEST, {"model_id": model.model_id[:-1] + "x"}, 404)
    assert f"did you mean '{model.model_id}'?" in problem["detail"]


async def test_neither_strategy_nor_model(stocked: ControlPlane) -> None:
    assert "neither a strategy nor a model" in (await _refused(stocked, BACKTEST, {}, 422))["detail"]
    two = {"model_id": "a", "model_path": "b"}
    assert "give one of them" in (await _refused(stocked, BACKTEST, two, 422))["detail"]


@pytest.mark.parametrize("path", ["model.pt", "models/best.PTH", "x.pkl"])
async def test_pickles_are_refused_with_the_way_to_a_bundle(stocked: ControlPlane, path: str) -> None:
    problem = await _refused(stocked, BACKTEST, {"strategy_name": "sp500_trend", "model_path": path}, 422)
    assert "ktrdr models train" in problem["detail"]


async def test_a_model_of_another_timeframe_does_not_fit(stocked: ControlPlane) -> None:
    model = await add_model(stocked, "neuro_mean_reversion")
    named = {"model_id": model.model_id, "strategy_name": "neuro_mean_reversion", "timeframe": "1d"}
    problem = await _refused(stocked, BACKTEST, named, 422)
    assert "trained on 1h bars" in problem["detail"]
    newest = {"strategy_name": "neuro_mean_reversion", "timeframe": "1d"}
    problem = await _refused(stocked, BACKTEST, newest, 404)
    assert "--timeframe 1d" in problem["detail"]
    assert "for 1h" in problem["detail"]


async def test_a_model_with_other_inputs_does_not_fit(stocked: ControlPlane) -> None:
    model = await add_model(stocked)
    other = edited("sp500_trend", indicators__rsi_14__period=15)
    problem = await _refused(stocked, BACKTEST, {"model_id": model.model_id, "strategy": other}, 422)
    assert problem["type"] == "urn:ktrdr:problem:invalid-model"
    assert "Train it again" in problem["detail"]
    cheaper = edited("sp500_trend", backtest__initial_capital=1000)
    await stocked.api("POST", "/backtests/start", {"model_id": model.model_id, "strategy": cheaper})


async def test_ranges_without_bars(stocked: ControlPlane) -> None:
    await add_model(stocked)
    for start, end in (("2019-01-01", None), (None, "1999-02-01"), ("2015-05-02", "2015-05-03")):
        body = {"strategy_name": "sp500_trend", "start_date": start, "end_date": end}
        problem = await _refused(stocked, BACKTEST, body, 422)
        assert problem["type"] == "urn:ktrdr:problem:too-few-bars"
        assert "1999-01-04 to 2018-12-31" in problem["detail"]
    problem = await _refused(stocked, BACKTEST, {"strategy_name": "sp500_trend", "start_date": "soon"}, 422)
    assert "'soon' is not a date" in problem["detail"]


async def test_a_range_that_ends_before_it_starts(stocked: ControlPlane) -> None:
    await add_model(stocked)
    body = {"strategy_name": "sp500_trend", "start_date": "2016-01-01", "end_date": "2015-01-01"}
    problem = await _refused(stocked, BACKTEST, body, 422)
    assert "start_date 2016-01-01 is after end_date 2015-01-01" in problem["detail"]


async def test_twenty_bars_do_because_earlier_bars_feed_the_warm_up(stocked: ControlPlane) -> None:
    await add_model(stocked)
    body = {"strategy_name": "sp500_trend", "start_date": "2015-03-02", "end_date": "2015-03-27"}
    started = await stocked.api("POST", "/backtests/start", body)
    spec = await _spec(stocked, started["operation_id"])
    assert (spec["start_date"], spec["end_date"]) == ("2015-03-02", "2015-03-27")


# --- workers, queue, keys -------------------------------------------------------------------------------------------


async def test_without_workers_the_errors_say_how_to_start_one(stocked: ControlPlane) -> None:
    await add_model(stocked)
    for worker in ("b1", "t1"):
        assert (await stocked.ask("DELETE", f"/api/v1/workers/{worker}")).status == 204
    problem = await _refused(stocked, BACKTEST, {"strategy_name": "sp500_trend"}, 503)
    assert (problem["type"], problem["detail"]) == (
        "urn:ktrdr:problem:no-workers",
        "No backtesting workers available. Start one: ktrdr worker start backtesting",
    )
    problem = await _refused(stocked, TRAIN, {"strategy_name": "sp500_trend"}, 503)
    assert problem["detail"] == (
        "No training workers available. Start GPU or CPU training workers: ktrdr worker start training"
    )


async def test_draining_and_unavailable_workers_count_as_none(stocked: ControlPlane) -> None:
    await stocked.api("POST", "/workers/t1/drain")
    drained = await _refused(stocked, TRAIN, {"strategy_name": "sp500_trend"}, 503)
    assert drained["type"] == "urn:ktrdr:problem:no-workers"
    assert drained["detail"].endswith("ktrdr worker start training. t1 drains: ktrdr workers undrain t1")
    await stocked.api("POST", "/workers/t1/undrain")
    stocked.unplug(stocked.workers["t1"])
    for _ in range(3):
        await stocked.probe()
    gone = await _refused(stocked, TRAIN, {"strategy_name": "sp500_trend"}, 503)
    assert gone["type"] == "urn:ktrdr:problem:no-workers"
    assert "drain" not in gone["detail"]


async def test_a_busy_fleet_queues_or_rejects_as_asked(stocked: ControlPlane) -> None:
    body = {"strategy_name": "sp500_trend"}
    first = await stocked.api("POST", "/trainings/start", body)
    await stocked.until(first["operation_id"], "running")
    answer = await stocked.ask("POST", TRAIN, body | {"when_busy": "reject"})
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    second = await stocked.api("POST", "/trainings/start", body)
    assert second["queue_position"] == 1
    await stocked.deliver(stocked.workers["t1"], first["operation_id"], "failed", error="x")
    await stocked.until(second["operation_id"], "running")


async def test_what_was_recorded_under_a_key_is_not_refused_when_it_is_submitted_again(
    stocked: ControlPlane,
) -> None:
    """The first answer was lost, and the operation itself keeps the only worker busy."""
    body = {"strategy_name": "sp500_trend", "when_busy": "reject"}
    first = await stocked.api("POST", "/trainings/start", body, idempotency_key="k")
    await stocked.until(first["operation_id"], "running")
    again = await stocked.api("POST", "/trainings/start", body, idempotency_key="k")
    assert again["operation_id"] == first["operation_id"]
    assert (await stocked.ask("POST", TRAIN, body, idempotency_key="other")).status == 503


async def test_the_same_key_and_body_give_the_same_operation(stocked: ControlPlane) -> None:
    body = {"strategy_name": "sp500_trend"}
    one = await stocked.api("POST", "/trainings/start", body, idempotency_key="k1")
    two = await stocked.api("POST", "/trainings/start", body, idempotency_key="k1")
    assert one["operation_id"] == two["operation_id"]
    answer = await stocked.ask("POST", TRAIN, body | {"seed": 3}, idempotency_key="k1")
    assert answer.status == 422
    assert "k1" in answer.json()["detail"]
    assert (await stocked.api("GET", "/operations"))["total"] == 1


async def test_a_retry_that_is_repeated_under_its_key_is_one_operation(stocked: ControlPlane) -> None:
    first = (await stocked.api("POST", "/trainings/start", {"strategy_name": "sp500_trend"}))["operation_id"]
    await stocked.until(first, "running")
    await stocked.deliver(stocked.workers["t1"], first, "failed", error="boom")
    path = f"/api/v1/operations/{first}/retry"
    answers = [await stocked.ask("POST", path, idempotency_key="k") for _ in range(3)]
    assert {answer.status for answer in answers} == {202}
    assert len({answer.json()["operation_id"] for answer in answers}) == 1
    other = await stocked.ask("POST", path)
    assert other.json()["operation_id"] != answers[0].json()["operation_id"]


async def test_a_retry_is_a_new_linked_operation_that_is_dispatched(stocked: ControlPlane) -> None:
    first = (await stocked.api("POST", "/trainings/start", {"strategy_name": "sp500_trend"}))["operation_id"]
    await stocked.until(first, "running")
    assert (await stocked.ask("POST", f"/api/v1/operations/{first}/retry")).status == 409
    await stocked.deliver(stocked.workers["t1"], first, "failed", error="boom")
    answer = await stocked.api("POST", f"/operations/{first}/retry")
    assert answer["parent_operation_id"] == first
    await stocked.until(answer["operation_id"], "running")
    assert await _spec(stocked, first) == await _spec(stocked, answer["operation_id"])
    await calm()
    await stocked.deliver(stocked.workers["t1"], answer["operation_id"], "completed")
    assert (await stocked.ask("POST", f"/api/v1/operations/{answer['operation_id']}/retry")).status == 409


async def test_a_time_limit_goes_to_the_worker_with_each_attempt_and_retry(stocked: ControlPlane) -> None:
    body = {"strategy_name": "sp500_trend", "time_limit_s": 90}
    first = (await stocked.api("POST", "/trainings/start", body))["operation_id"]
    await stocked.until(first, "running")
    worker = stocked.workers["t1"]
    await stocked.deliver(worker, first, "released")
    await stocked.until(first, "running")
    await stocked.deliver(worker, first, "failed", error="It ran longer than its time limit.")
    again = (await stocked.api("POST", f"/operations/{first}/retry"))["operation_id"]
    await stocked.until(again, "running")
    await stocked.deliver(worker, again)
    without = (await stocked.api("POST", "/trainings/start", {"strategy_name": "sp500_trend"}))[
        "operation_id"
    ]
    await stocked.until(without, "running")
    assert [start.time_limit_s for start in worker.starts] == [90, 90, 90, None]
    shown = [
        (await stocked.api("GET", f"/operations/{name}"))["time_limit_s"] for name in (first, again, without)
    ]
    assert shown == [90, 90, None]
    assert await _spec(stocked, first) == await _spec(stocked, without)


@pytest.mark.parametrize("limit", [0, -1, 1e10, "long"])
async def test_a_time_limit_that_is_none_is_refused(stocked: ControlPlane, limit: Any) -> None:
    body = {"strategy_name": "sp500_trend", "time_limit_s": limit}
    told = await _refused(stocked, TRAIN, body, 422)
    assert told["errors"][0]["pointer"] == "/time_limit_s"
