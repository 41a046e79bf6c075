"""The public API and the worker protocol against a small model, in whatever order things may happen.

Hypothesis plays users, workers, time and a restarting backend; the real application answers. After every step the
whole ledger is read through the API and compared with what the model allows; at the end everything heals, and every
acknowledged operation must end as the model says. ``make test-api`` searches longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from ktrdr.testing.fake_worker import FakeWorker
from support.control_plane import ControlPlane, calm

T = TypeVar("T")
EXAMPLES = int(os.environ.get("KTRDR_API_MACHINES", "12"))
STEPS = int(os.environ.get("KTRDR_API_STEPS", "30"))
PHASES = (Phase.generate, Phase.shrink) if "KTRDR_API_SHRINK" in os.environ else (Phase.generate,)
LIVE = ("assigned", "running", "cancelling")
TERMINAL = ("completed", "failed", "cancelled")
START = "/api/v1/trainings/start"
NAMES = st.sampled_from(["t1", "t2", "t3"])
ENDS = st.sampled_from(["completed", "failed", "cancelled", "released", "child_died"])
WORDS = st.sampled_from(["busy", "older", "bad", "crash"])


@dataclass
class Known:
    """What the model knows of one acknowledged operation."""

    body: dict[str, Any]
    view: dict[str, Any] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)  # ends that its own worker delivered for its own attempt
    cancelled: bool = False  # the cancel was acknowledged while it was not over


class Api(RuleBasedStateMachine):
    home: Path
    operations = Bundle("operations")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.plane = ControlPlane(self.home)
        self.stack = contextlib.AsyncExitStack()
        self.known: dict[str, Known] = {}
        self.keys: dict[str, str] = {}
        self.paused = False
        self.some_job_was_called_wrong = False  # and which of them, the dispatcher decides
        self.do(self._open())

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(self._settled(work))

    async def _settled(self, work: Coroutine[Any, Any, T]) -> T:
        result = await work
        await calm(15)
        return result

    async def _open(self) -> None:
        await self.stack.enter_async_context(self.plane.running())

    def read(self, path: str) -> Any:
        return self.runner.run(self.plane.api("GET", path))

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        self.plane.clock.advance(0.001)
        return self.do(self.plane.ask(method, path, body, **headers))

    # --- users ------------------------------------------------------------------------------------------------------

    @initialize()
    def a_fleet(self) -> None:
        for name in ("t1", "t2"):
            self.do(self.plane.join(name, "training"))

    @rule(
        target=operations,
        key=st.sampled_from([None, None, "k1", "k2"]),
        seed=st.integers(0, 2),
        priority=st.integers(-1, 1),
    )
    def submit(self, key: str | None, seed: int, priority: int) -> Any:
        body = {"strategy_name": "sp500_trend", "seed": seed, "priority": priority}
        usable = [w for w in self._workers() if w["status"] in ("available", "busy")]
        answer = self.ask("POST", START, body, **({"Idempotency_Key": key} if key else {}))
        earlier = self.keys.get(key or "")
        if earlier is not None:
            same = self.known[earlier].body == body
            assert answer.status == (202 if same else 422), answer.body
            assert not same or answer.json()["operation_id"] == earlier
            return multiple()
        if not usable:
            assert (answer.status, answer.json()["type"]) == (503, "urn:ktrdr:problem:no-workers")
            return multiple()
        assert answer.status == 202, answer.body
        return self._new(answer.json()["operation_id"], body, key)

    @rule(target=operations, name=operations)
    def retry(self, name: str) -> Any:
        answer = self.ask("POST", f"/api/v1/operations/{name}/retry")
        if name not in self.known:
            assert answer.status == 404
            return multiple()
        status = self.known[name].view["status"]
        assert answer.status == (202 if status in ("failed", "cancelled") else 409), (status, answer.body)
        if answer.status == 409:
            return multiple()
        assert answer.json()["parent_operation_id"] == name
        return self._new(answer.json()["operation_id"], self.known[name].body, None)

    @rule(name=operations)
    def cancel(self, name: str) -> None:
        answer = self.ask("POST", f"/api/v1/operations/{name}/cancel")
        known = self.known.get(name)
        assert answer.status == (404 if known is None else 202)
        if known is not None and known.view["status"] not in TERMINAL:
            known.cancelled = True

    @rule(name=operations)
    def delete(self, name: str) -> None:
        answer = self.ask("DELETE", f"/api/v1/operations/{name}")
        known = self.known.get(name)
        if known is None:
            assert answer.status == 404
        elif known.view["status"] in TERMINAL:
            assert answer.status == 204
            del self.known[name]
            self.keys = {key: value for key, value in self.keys.items() if value != name}
        else:
            assert answer.status == 409

    @rule(verb=st.sampled_from(["pause", "unpause", "unpause"]))
    def pause(self, verb: str) -> None:
        assert self.ask("POST", f"/api/v1/queue/{verb}", {}).status == 200
        self.paused = verb == "pause"

    def _new(self, name: str, body: dict[str, Any], key: str | None) -> str:
        assert name not in self.known
        self.known[name] = Known(body)
        if key is not None:
            self.keys[key] = name
        return name

    # --- workers ----------------------------------------------------------------------------------------------------

    @rule(name=NAMES)
    def register(self, name: str) -> None:
        worker = self.plane.workers.get(name) or self.plane.machine(name, "training")
        answer = self.ask("POST", "/api/v1/workers/register", worker.registration())
        assert answer.status == (200 if worker.url in self.plane.apps else 422), answer.body

    @rule(name=NAMES)
    def restart_worker(self, name: str) -> None:
        if (worker := self.plane.workers.get(name)) is not None:
            worker.restart()
            self.plane.plug(worker)
            assert self.ask("POST", "/api/v1/workers/register", worker.registration()).ok

    @rule(name=NAMES, out=st.booleans())
    def cable(self, name: str, out: bool) -> None:
        if (worker := self.plane.workers.get(name)) is not None:
            (self.plane.unplug if out else self.plane.plug)(worker)

    @rule(name=NAMES, word=WORDS)
    def answers_next_start(self, name: str, word: str) -> None:
        if (worker := self.plane.workers.get(name)) is not None:
            worker.script = [word]
            self.some_job_was_called_wrong |= word == "bad"

    @rule(name=NAMES, verb=st.sampled_from(["drain", "undrain"]))
    def drains(self, name: str, verb: str) -> None:
        listed = {w["worker_id"] for w in self._workers()}
        answer = self.ask("POST", f"/api/v1/workers/{name}/{verb}")
        assert answer.status == (200 if name in listed else 404)

    @rule(name=NAMES)
    def forget(self, name: str) -> None:
        listed = {w["worker_id"]: w for w in self._workers()}
        answer = self.ask("DELETE", f"/api/v1/workers/{name}")
        assert answer.status in ((204, 409) if name in listed else (404,))

    @rule(name=NAMES, end=ENDS, twice=st.booleans())
    def deliver(self, name: str, end: str, twice: bool) -> None:
        """The worker ends what it runs and says so, once or twice."""
        worker = self.plane.workers.get(name)
        if worker is None or (operation := worker.running) is None:
            return
        self._tell(worker, operation, end)
        body = worker.report(operation, end, **({"error": "told"} if end in ("failed", "child_died") else {}))
        for _ in range(1 + twice):
            answer = self.ask("POST", f"/api/v1/workers/{name}/report", body)
            assert answer.status in (200, 404), answer.body  # 404: it is not registered

    def _tell(self, worker: FakeWorker, operation: str, end: str) -> None:
        known = self.known.get(operation)
        if known is None:
            return
        view = self._view(operation)
        if (view["worker_id"], view["attempt"]) == (worker.worker_id, worker.jobs[operation].attempt):
            known.told.add(end)

    @rule(name=NAMES)
    def obeys(self, name: str) -> None:
        """The worker heard that it shall stop what it runs."""
        worker = self.plane.workers.get(name)
        if worker is not None and worker.running in {cancelled for cancelled, _ in worker.cancels}:
            self.deliver(name, "cancelled", False)

    @rule(
        name=NAMES,
        operation=operations,
        attempt=st.integers(-1, 6),
        end=ENDS,
        instance=st.sampled_from(["t1-1", "t2-1", "x"]),
    )
    def delivers_what_is_not_its_own(
        self, name: str, operation: str, attempt: int, end: str, instance: str
    ) -> None:
        """Stale, future and foreign messages: whatever they say, nothing changes."""
        if operation in self.known:
            view = self._view(operation)
            if (view["worker_id"], view["attempt"]) == (name, attempt):
                return
        delivery = {"operation_id": operation, "attempt": attempt, "status": end, "error": "foreign"}
        message = {"instance_id": instance, "worker_status": "idle", "delivery": delivery}
        answer = self.ask("POST", f"/api/v1/workers/{name}/report", message)
        assert answer.status in (200, 404), answer.body

    # --- time -------------------------------------------------------------------------------------------------------

    @rule()
    def probe(self) -> None:
        self.do(self.plane.probe())

    @rule(seconds=st.sampled_from([1.0, 20.0, 70.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.plane.clock.advance(seconds)
        self.do(self.plane.probe())

    @rule()
    def the_backend_restarts(self) -> None:
        self.do(self.stack.aclose())
        self.plane.count += 1  # another seed, as in production: ids do not repeat
        self.do(self._open())

    # --- what always holds ------------------------------------------------------------------------------------------

    def _workers(self) -> list[dict[str, Any]]:
        return list(self.read("/workers")["workers"])

    def _view(self, name: str) -> dict[str, Any]:
        return dict(self.read(f"/operations/{name}"))

    @invariant()
    def the_ledger_is_as_the_model_says(self) -> None:
        listed = self._pages()
        assert [view["operation_id"] for view in listed] == list(reversed(self.known))
        for view in listed:
            self._compare(self.known[view["operation_id"]], view)
        busy = [(v["worker_id"], v["status"]) for v in listed if v["status"] in LIVE]
        assert len({worker for worker, _ in busy}) == len(busy), "two operations on one worker"
        pending = [v["operation_id"] for v in listed if v["status"] == "pending"]
        waiting = sorted(self._view(name)["queue_position"] for name in pending)
        assert waiting == list(range(1, len(waiting) + 1))

    def _pages(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self.read(f"/operations?limit=3{cursor}")
            assert page["total"] == len(self.known)
            found += page["operations"]
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    def _compare(self, known: Known, view: dict[str, Any]) -> None:
        before, known.view = known.view, view
        status = view["status"]
        if before and before["status"] in TERMINAL:
            assert _without_story(view) == _without_story(before), "terminal is final"
        if before:
            assert view["attempt"] >= before["attempt"]
            assert not self.paused or view["attempt"] == before["attempt"], (
                "nothing is dispatched while paused"
            )
            assert view["failures"] >= before["failures"]
        assert view["failures"] <= 3
        if known.cancelled:
            assert status in ("cancelling", "cancelled"), "a cancel was acknowledged"
        if status == "completed":
            assert "completed" in known.told
            assert view["progress"]["percentage"] == 100
        if status == "cancelled":
            assert known.cancelled or "cancelled" in known.told
        if status == "failed":
            reasons = known.told & {"failed", "child_died"}
            assert reasons or view["failures"] == 3 or self.some_job_was_called_wrong, view

    # --- the end ----------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            self._heal()
        finally:
            self.runner.run(self.stack.aclose())
            self.runner.close()

    def _heal(self) -> None:
        """Everything works again, so everything ends."""
        self.pause("unpause")
        for name in ("t1", "t2", "t3"):
            worker = self.plane.workers.get(name) or self.plane.machine(name, "training")
            worker.script.clear()
            self.plane.plug(worker)
            self.register(name)
            self.drains(name, "undrain")
        for _ in range(2 * len(self.known) + 8):
            self.plane.clock.advance(20.0)
            self.do(self.plane.probe())
            for name, worker in self.plane.workers.items():
                if worker.running is not None:
                    self.deliver(name, "completed", False)
            self.the_ledger_is_as_the_model_says()
        left = {
            name: known.view for name, known in self.known.items() if known.view["status"] not in TERMINAL
        }
        assert not left, "everything ends once everything works"


def _without_story(view: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in view.items() if key != "story"}


def test_the_api_against_its_model(stocked_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"  # other tests copy the stocked one, and would find in it what is recorded here
    shutil.copytree(stocked_home, home)
    machine: Callable[[], Api] = type("Machine", (Api,), {"home": home})
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=checks,
            phases=PHASES,
        ),
    )
