"""Query parameters that a worker's route does not have are refused; those that a backend sends are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from ktrdr.errors import NotFound
from ktrdr.operations.model import OperationType, WorkerType
from ktrdr.protocol.client import OperationServiceProxy
from ktrdr.protocol.messages import StartJob
from ktrdr.protocol.transports import AsgiTransport
from ktrdr.testing.worker_jobs import spec
from ktrdr.workers.backtest_worker import BacktestWorker
from ktrdr.workers.settings import WorkerSettings

URL = "http://localhost"


@pytest.fixture
def transport(tmp_path: Path) -> AsgiTransport:
    """To a worker that has not started; whatever reaches a route finds no operation there."""
    settings = WorkerSettings(
        worker_type=WorkerType.BACKTESTING, api_urls=("http://127.0.0.1:1",), home=tmp_path
    )
    return AsgiTransport({URL: BacktestWorker(settings).app})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/health"),
        ("POST", "/backtests/start"),
        ("POST", "/api/v1/backtests/start"),
        ("GET", "/api/v1/operations"),
        ("GET", "/api/v1/operations/op"),
        ("GET", "/api/v1/operations/op/metrics"),
        ("GET", "/api/v1/operations/op/logs"),
        ("POST", "/api/v1/operations/op/cancel"),
        ("DELETE", "/api/v1/operations/op/cancel"),
        ("POST", "/api/v1/operations/op/release"),
    ],
)
async def test_each_route_refuses_what_it_does_not_know(
    transport: AsgiTransport, method: str, path: str
) -> None:
    body = {"task_id": "op", "attempt": 1, "spec": spec("return").model_dump()} if "start" in path else None
    answer = await transport.request(method, f"{URL}{path}?atempt=1", json=body)
    assert (answer.status, answer.headers["content-type"]) == (422, "application/problem+json")
    problem = answer.json()
    assert problem["errors"][0]["pointer"] == "query/atempt"
    assert f"{path} has no query parameter 'atempt'; it takes" in problem["detail"]


async def test_what_a_backend_sends_is_known(transport: AsgiTransport) -> None:
    """A refused parameter would be a Conflict."""
    worker = OperationServiceProxy(transport, URL)
    job = StartJob(task_id="op", attempt=1, spec=spec("return"))
    assert (await worker.start(OperationType.BACKTESTING, job, "another")).status == 409
    for asking in (
        worker.metrics("op", 3),
        worker.log("op", 5),
        worker.cancel("op", 1),
        worker.release("op", 1),
    ):
        with pytest.raises(NotFound):
            await asking
