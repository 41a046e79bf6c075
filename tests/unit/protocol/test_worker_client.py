"""The backend's client for one worker."""

from __future__ import annotations

import pytest

from ktrdr.errors import Conflict, NotFound, ServerUnreachable
from ktrdr.operations.model import OperationType
from ktrdr.protocol.client import LogPiece, OperationServiceProxy, problem_detail
from ktrdr.protocol.messages import StartJob
from ktrdr.protocol.specs import BacktestSpec, DatasetRef
from ktrdr.protocol.transports import Answer


class Recorder:
    """A transport that answers what it is told and remembers what it was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[tuple] = []

    async def request(self, method, url, *, json=None, headers=None, timeout_s=10.0) -> Answer:
        self.asked.append((method, url, json, headers, timeout_s))
        return self.answers.pop(0)

    async def close(self) -> None:
        return None


def _job() -> StartJob:
    data = [DatasetRef(symbol="X", timeframe="1d", manifest="a" * 64)]
    spec = BacktestSpec(
        strategy_name="s", strategy="x", symbol="X", timeframe="1d", datasets=data, model="b" * 64
    )
    return StartJob(task_id="op", attempt=2, lease_s=60.0, spec=spec)


async def test_start_goes_to_the_route_of_the_kind_with_the_credential() -> None:
    told = Recorder(Answer(202), Answer(503))
    proxy = OperationServiceProxy(told, "http://w:1/", token="secret", timeout_s=3.0)
    assert (await proxy.start(OperationType.BACKTESTING, _job(), "w 1-ab")).status == 202
    assert (await proxy.start(OperationType.TRAINING, _job(), "w2-k9")).status == 503
    (method, url, body, headers, timeout_s), (_, second, *_) = told.asked
    assert (method, url, timeout_s) == ("POST", "http://w:1/backtests/start?instance_id=w+1-ab", 3.0)
    assert second == "http://w:1/training/start?instance_id=w2-k9"
    assert headers == {"authorization": "Bearer secret"}
    assert (body["task_id"], body["attempt"], body["spec"]["kind"]) == ("op", 2, "backtesting")


async def test_reads_raise_what_the_answer_means() -> None:
    told = Recorder(Answer(404), Answer(409, {}, b'{"detail": "no"}'), Answer(200, {}, b'{"worker_id": 1}'))
    proxy = OperationServiceProxy(told, "http://w:1")
    with pytest.raises(NotFound):
        await proxy.operation("op")
    with pytest.raises(Conflict, match="409: no"):
        await proxy.cancel("op", 3)
    with pytest.raises(ServerUnreachable, match="not a ktrdr worker of this version"):
        await proxy.health()
    assert told.asked[1][1].endswith("/cancel?attempt=3")
    assert told.asked[0][3] == {}


async def test_log_and_metrics() -> None:
    told = Recorder(
        Answer(200, {"x-log-offset": "3", "x-log-size": "8", "x-log-attempt": "2"}, b"hello"),
        Answer(200, {"x-log-size": "-1"}, b"of a worker that says no more"),
        Answer(200, {}, b'{"operation_id": "op", "bars": [{"a": 1}], "next_cursor": 5}'),
    )
    proxy = OperationServiceProxy(told, "http://w:1")
    assert await proxy.log("op", 3) == LogPiece(content=b"hello", offset=3, size=8, attempt=2)
    assert await proxy.log("op", 0) == LogPiece(content=b"of a worker that says no more")
    view = await proxy.metrics("op", 4)
    assert (view.bars, view.next_cursor) == ([{"a": 1}], 5)
    assert told.asked[0][1].endswith("/logs?offset=3")
    assert told.asked[2][1].endswith("/metrics?cursor=4")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}"])
def test_an_error_without_a_problem_is_told_by_its_status(body: bytes) -> None:
    assert problem_detail(Answer(500, {}, body)).startswith("HTTP 500")
