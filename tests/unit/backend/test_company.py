"""Two backends on one ledger in one event loop: who does what, what each knows, and how the lead changes hands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ktrdr.backend.cluster.bulletin import Bulletin, Told, heard
from ktrdr.backend.cluster.sharing import Cluster
from ktrdr.errors import Unavailable
from ktrdr.operations.events import CancelRequested, NotMine
from ktrdr.operations.memory.ledger import MemoryStore
from ktrdr.operations.model import NewOperation, Operation, OperationStatus, OperationType
from ktrdr.operations.sql.board import WorkerState
from ktrdr.operations.sql.fence import Fence
from ktrdr.testing.memory_election import MemoryBoard, MemoryElection
from ktrdr.testing.operations import T0
from support.control_plane import STILL, ControlPlane, calm, settle, spec_of

ADDRESSES = {"a": "http://127.0.0.1:8001", "b": "http://127.0.0.1:8002"}


class _SlowAnswer(MemoryStore):
    """While ``gate`` is closed, what is live is told later than it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.reading = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.away = False

    async def paused(self) -> Mapping[OperationType, datetime]:
        if self.away:
            raise Unavailable("The database X does not answer.")
        return await super().paused()

    async def live(self) -> Sequence[Operation]:
        found = await super().live()
        if not self.gate.is_set():
            self.reading.set()
            await self.gate.wait()
        return found


class Pair:
    """Backends ``a`` and ``b``; ``a`` leads at first."""

    def __init__(self, home: Path) -> None:
        self.election = MemoryElection()
        self.planes: dict[str, ControlPlane] = {}
        self.store = _SlowAnswer()
        self.count = 0
        self.states: dict[str, WorkerState] = {}
        for name, address in ADDRESSES.items():
            fence = Fence()
            board = MemoryBoard(self.election, fence, self.states)
            leadership = self.election.candidate(f"backend {name}", address)
            plane = ControlPlane(
                home, STILL, self.store, cluster=Cluster(leadership, board, fence), address=address
            )
            self.planes[name] = plane
        first = self.planes["a"]
        for plane in self.planes.values():  # one world for both
            plane.clock, plane.apps, plane.workers = first.clock, first.apps, first.workers
            plane.transport = first.transport

    @property
    def a(self) -> ControlPlane:
        return self.planes["a"]

    @property
    def b(self) -> ControlPlane:
        return self.planes["b"]

    async def change_hands(self) -> None:
        """The other one is given the lead."""
        self.election.hand_over()
        await settle(self.led, lambda led: led == [plane is self.heir for plane in self.planes.values()])

    @property
    def heir(self) -> ControlPlane:
        holder = self.election.holder
        return next(
            p for p in self.planes.values() if p.cluster is not None and p.cluster.leadership is holder
        )

    async def led(self) -> list[bool]:
        return [plane.backend.leads for plane in self.planes.values()]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    pair = Pair(tmp_path)
    async with contextlib.AsyncExitStack() as running:
        for plane in pair.planes.values():
            await running.enter_async_context(plane.running())
        yield pair


async def seen(read: Callable[[], Any], good: Callable[[Any], bool]) -> Any:
    return await settle(read, good)


async def again(plane: ControlPlane, pair: Pair) -> str:
    """Submit through the routes of this backend: an ended operation is retried."""
    pair.count += 1
    earlier = f"earlier-{pair.count}"
    kind = OperationType.BACKTESTING
    await pair.store.submit(NewOperation(operation_id=earlier, operation_type=kind, spec=spec_of(kind)), T0)
    await pair.store.apply(earlier, CancelRequested(), T0)
    return str((await plane.api("POST", f"/operations/{earlier}/retry"))["operation_id"])


# --- roles ------------------------------------------------------------------------------------------------------------


async def test_health_and_metrics_tell_the_role(pair: Pair) -> None:
    told = {name: (await plane.ask("GET", "/health")).json() for name, plane in pair.planes.items()}
    assert {name: (body["role"], body["epoch"]) for name, body in told.items()} == {
        "a": ("leader", 1),
        "b": ("follower", 1),
    }
    for plane, value in ((pair.a, "1.0"), (pair.b, "0.0")):
        text = (await plane.ask("GET", "/metrics")).body.decode()
        assert f"\nktrdr_backend_leader {value}" in text


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/workers/w1/report", {"instance_id": "i", "worker_status": "idle"}),
        ("POST", "/workers/w1/drain", None),
        ("POST", "/workers/w1/undrain", None),
        ("DELETE", "/workers/w1", None),
        ("POST", "/queue/pause", {}),
        ("POST", "/queue/unpause", {}),
    ],
)
async def test_what_is_the_leaders_is_refused_with_its_address(
    pair: Pair, method: str, path: str, body: Any
) -> None:
    await pair.a.join("w1")
    answer = await pair.b.ask(method, f"/api/v1{path}", body)
    problem = answer.json()
    assert (answer.status, problem["type"]) == (503, "urn:ktrdr:problem:not-leader")
    assert "the leader is the backend a at http://127.0.0.1:8001 (epoch 1)" in problem["detail"]
    assert "KTRDR_API_URL" in problem["detail"]
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("lost", [True, False])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/workers/w1/drain", None),
        ("POST", "/workers/w1/undrain", None),
        ("DELETE", "/workers/w1", None),
        ("POST", "/queue/pause", {}),
        ("POST", "/queue/unpause", {}),
    ],
)
async def test_who_lost_the_lead_with_the_ledger_tells_of_the_ledger(
    pair: Pair, method: str, path: str, body: Any, lost: bool
) -> None:
    """No other leader is known: the reason is not that there is one."""
    await pair.a.join("w1")
    pair.election.holder = None
    for candidate in pair.election.candidates:
        candidate.look()
    pair.store.away = lost
    answer = await pair.a.ask(method, f"/api/v1{path}", body)
    problem = answer.json()
    assert (answer.status, problem["type"]) == (503, "urn:ktrdr:problem:not-leader")
    assert answer.headers["retry-after"] == "1"
    assert ("ledger does not answer. The database X does not answer." in problem["detail"]) is lost
    assert ("choosing a leader" in problem["detail"]) is not lost


async def test_registrations_go_to_the_leader(pair: Pair) -> None:
    worker = pair.b.machine("w1")
    answer = await pair.b.ask("POST", "/api/v1/workers/register", worker.registration())
    assert (answer.status, answer.json()["type"]) == (503, "urn:ktrdr:problem:not-leader")
    assert len(pair.b.backend.registry) == 0


# --- what a follower knows --------------------------------------------------------------------------------------------


async def listed(plane: ControlPlane) -> dict[str, str]:
    return {w["worker_id"]: w["status"] for w in (await plane.api("GET", "/workers"))["workers"]}


async def test_a_follower_lists_the_workers_as_the_leader_sees_them(pair: Pair) -> None:
    busy, away, leaving, own = [await pair.a.join(f"w{n}") for n in range(4)]
    name = await pair.a.submit()
    await pair.a.until(name, "running")
    assert busy.running == name
    pair.a.unplug(away)
    for _ in range(STILL.health_failures):
        await pair.a.probe()
    await pair.a.api("POST", f"/workers/{leaving.worker_id}/drain")
    own.jobs["by hand"] = next(iter(busy.jobs.values()))
    await pair.a.probe()
    expected = {"w0": "busy", "w1": "temporarily_unavailable", "w2": "draining", "w3": "busy"}
    assert await listed(pair.a) == expected
    await seen(lambda: listed(pair.b), lambda found: found == expected)
    shown = await pair.b.api("GET", "/workers/w0")
    assert shown["current_operation_id"] == name
    pair.a.plug(away)
    del own.jobs["by hand"]
    await pair.a.api("POST", f"/workers/{leaving.worker_id}/undrain")
    await pair.a.probe()
    await pair.a.api("DELETE", "/workers/w3")
    await seen(
        lambda: listed(pair.b), lambda found: found == {"w0": "busy", "w1": "available", "w2": "available"}
    )
    assert pair.states == {}


async def test_the_check_for_workers_is_right_at_once(pair: Pair) -> None:
    """It is made on what the ledger says now, not on what the follower last saw."""
    use = pair.b.backend.backtesting._use  # the submit path needs data; its check does not
    await seen(lambda: listed(pair.b), lambda found: found == {})
    await pair.a.join("w1")
    pair.a.clock.advance(1.0)
    await use.fresh()
    assert use.registry.usable(pair.a.backend.registry.get("w1").record.worker_type) == 1
    await pair.a.api("DELETE", "/workers/w1")
    pair.a.clock.advance(1.0)
    await use.fresh()
    assert len(use.registry) == 0


# --- work through a follower ------------------------------------------------------------------------------------------


async def test_a_submission_at_a_follower_is_dispatched_by_the_leader(pair: Pair) -> None:
    worker = await pair.a.join("w1")
    name = await again(pair.b, pair)
    await pair.b.until(name, "running")
    assert [start.task_id for start in worker.starts] == [name]
    await pair.a.deliver(worker, name)
    answer = await pair.b.api("GET", f"/operations/{name}?wait=20")
    assert answer["status"] == "completed"


async def test_who_leads_no_more_keeps_no_count_of_refusals(pair: Pair) -> None:
    worker = await pair.a.join("w1")
    worker.script.extend(["busy"] * 3)
    name = await again(pair.a, pair)
    dispatcher = pair.a.backend.dispatcher
    await seen(_of(dispatcher), lambda found: found.refusals_of(name) == 3)
    await pair.change_hands()
    assert dispatcher.refusals_of(name) == 0


async def test_a_follower_forgets_the_progress_of_what_ended_elsewhere(pair: Pair) -> None:
    worker = await pair.a.join("w1")
    name = await pair.a.submit()
    await pair.b.until(name, "running")
    progress = pair.b.backend.operations.progress
    await progress.known([await pair.store.get(name)])
    assert len(progress) == 1
    await pair.a.deliver(worker, name)
    await seen(_of(progress), lambda known: len(known) == 0)


async def test_news_that_get_lost_delay_and_lose_nothing(pair: Pair) -> None:
    worker = await pair.a.join("w1")
    for plane in pair.planes.values():
        assert plane.cluster is not None
        plane.cluster.leadership.on_news = lambda _: None
    name = await again(pair.b, pair)
    await pair.b.until(name, "running")
    await pair.b.api("POST", f"/operations/{name}/cancel")
    for _ in range(2):  # a sweep sees the cancel, the next probe tells the worker
        await pair.a.probe()
    await settle(_of(worker.cancels), bool)
    await pair.a.deliver(worker, name, "cancelled")
    assert await pair.b.status(name) is OperationStatus.CANCELLED


def _of(value: Any) -> Callable[[], Any]:
    async def read() -> Any:
        return value

    return read


async def test_a_cancel_at_a_follower_reaches_the_worker_and_frees_it_at_the_leader(pair: Pair) -> None:
    worker = await pair.a.join("w1")
    name = await pair.a.submit()
    await pair.a.until(name, "running")
    await seen(lambda: listed(pair.b), lambda found: found == {"w1": "busy"})
    worker.jobs.clear()  # it lost the job, and says so to the follower, which ends the operation
    await pair.b.api("POST", f"/operations/{name}/cancel")
    await settle(lambda: pair.store.get(name), lambda o: o.status is OperationStatus.CANCELLED)
    await seen(lambda: listed(pair.a), lambda found: found == {"w1": "available"})


async def test_a_follower_shows_progress_that_it_asks_the_worker_for(pair: Pair) -> None:
    worker = await pair.a.join("w1")
    name = await pair.a.submit()
    await pair.a.until(name, "running")
    await seen(lambda: listed(pair.b), lambda found: found == {"w1": "busy"})
    worker.jobs[name].progress = {"percentage": 40.0, "items_done": 4, "items_total": 10}
    pair.a.clock.advance(2.0)
    shown = await pair.b.api("GET", f"/operations/{name}")
    assert shown["progress"]["percentage"] == 40.0


async def test_a_follower_forgets_an_operation_for_all(pair: Pair) -> None:
    name = await again(pair.b, pair)
    await pair.b.api("POST", f"/operations/{name}/cancel")
    await pair.b.api("DELETE", f"/operations/{name}")
    assert (await pair.a.ask("GET", f"/api/v1/operations/{name}")).status == 404


# --- the lead changes hands -------------------------------------------------------------------------------------------


async def test_the_heir_adopts_what_runs_and_dispatches_the_rest(pair: Pair) -> None:
    worker = await pair.a.join("w1")
    running, waiting = await pair.a.submit(), await pair.a.submit()
    await pair.a.until(running, "running")
    await pair.change_hands()
    assert pair.heir is pair.b
    assert (await pair.b.ask("GET", "/health")).json()["epoch"] == 2
    assert (await pair.b.store.get(running)).attempt == 1
    await pair.b.deliver(worker, running)
    await pair.b.until(waiting, "running")
    assert [start.task_id for start in worker.starts] == [running, waiting]
    answer = await pair.a.ask("POST", "/api/v1/workers/w1/report", worker.report(waiting, "completed"))
    assert answer.json()["type"] == "urn:ktrdr:problem:not-leader"


async def test_who_waits_for_an_end_is_answered_though_the_lead_changes_hands(pair: Pair) -> None:
    worker = await pair.a.join("w1")
    name = await pair.a.submit()
    await pair.a.until(name, "running")
    waiting = [asyncio.create_task(p.api("GET", f"/operations/{name}?wait=60")) for p in pair.planes.values()]
    await calm()
    await pair.change_hands()
    await pair.b.deliver(worker, name)
    async with asyncio.timeout(20):
        assert {answer["status"] for answer in await asyncio.gather(*waiting)} == {"completed"}


async def test_a_start_whose_outcome_the_heir_does_not_know_is_repeated(pair: Pair) -> None:
    worker = await pair.a.join("w1")
    worker.script = ["hang"]
    name = await pair.a.submit()
    await pair.a.until(name, "assigned")
    await pair.change_hands()
    await pair.b.until(name, "running")
    assert [(start.task_id, start.attempt) for start in worker.starts] == [(name, 1)] * 2


async def test_what_ends_while_the_heir_reads_the_ledger_holds_no_worker(pair: Pair) -> None:
    worker = await pair.a.join("w1")
    worker.script = ["hang"]
    name = await pair.a.submit()
    await pair.a.until(name, "assigned")
    held = (await pair.store.get(name)).assignment
    assert held is not None
    worker.jobs.clear()  # the request gets lost
    await asyncio.sleep(0.1)  # the news of the assignment is told, and no other comes
    pair.election.hand_over()
    pair.store.gate.clear()
    await pair.store.reading.wait()  # the heir has its answer, which is on the way
    assert not pair.b.backend.leads
    await pair.store.apply(name, CancelRequested(), T0)
    await pair.store.apply(name, NotMine(held), T0)
    pair.store.gate.set()
    await settle(pair.led, lambda led: led == [False, True])
    other = await again(pair.b, pair)
    await pair.b.until(other, "running")
    assert [start.task_id for start in worker.starts] == [name, other]


async def test_who_leads_no_more_probes_and_dispatches_no_more(pair: Pair) -> None:
    worker = await pair.a.join("w1")
    await pair.change_hands()
    await calm()
    pair.a.backend.dispatcher.wake()
    name = await pair.a.submit()
    await pair.b.until(name, "pending")
    pair.b.backend.dispatcher.wake()
    await pair.b.until(name, "running")
    assert len(worker.starts) == 1
    probes = worker.probes
    pair.a.backend.health.probe_soon("w1")  # asks, and may; what follows from it is attempt-fenced
    await calm()
    assert worker.probes <= probes + 1


async def test_the_lead_goes_back_and_forth(pair: Pair) -> None:
    worker = await pair.a.join("w1")
    done = []
    for _ in range(4):
        await pair.change_hands()
        name = await again(pair.a, pair)
        await pair.a.until(name, "running")
        await pair.heir.deliver(worker, name)
        done.append(name)
    assert [start.task_id for start in worker.starts] == done
    assert {await pair.a.status(name) for name in done} == {OperationStatus.COMPLETED}


async def test_an_upload_folder_that_is_gone_when_it_is_looked_at_keeps_nobody_from_starting(
    tmp_path: Path,
) -> None:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "listed").symlink_to(
        tmp_path / "gone"
    )  # as if another backend removed it in between
    async with Pair(tmp_path).a.running() as plane:
        assert plane.backend.leads


async def test_a_stop_of_the_leader_hands_over(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    async with pair.b.running():
        await settle(_led(pair.b), bool)
        async with pair.a.running():
            assert not pair.a.backend.leads
            pair.election.hand_over()
            await settle(_led(pair.a), bool)
        await settle(_led(pair.b), bool)


def _led(plane: ControlPlane) -> Callable[[], Any]:
    async def read() -> bool:
        return plane.backend.leads

    return read


# --- news -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("news", ["", "{", "[]", "3", '{"operations": 5}', "null", '"x"'])
def test_news_that_are_none_say_nothing(news: str) -> None:
    assert heard(news) == Told()


async def test_a_burst_is_told_in_few_messages_of_bounded_size() -> None:
    told: list[str] = []

    async def tell(news: str) -> None:
        told.append(news)
        if len(told) == 2:
            raise Unavailable("The ledger is away.")

    bulletin = Bulletin(tell)
    names = [f"{number:0128d}" for number in range(100)]
    for name in names * 2:
        bulletin.changed(name)
    bulletin.submitted()
    bulletin.workers()
    await settle(_of(told), lambda found: len(found) == 3)
    await bulletin.close()
    assert [len(heard(news).operations) for news in told] == [40, 40, 20]
    assert [name for news in told for name in heard(news).operations] == names
    assert [(heard(news).pending, heard(news).workers) for news in told] == [(True, True)] + [
        (False, False)
    ] * 2
    assert max(len(news) for news in told) < 7_900
