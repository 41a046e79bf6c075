"""A worker that follows the contract: the real registration, courier, link and slot, around jobs that only take time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ktrdr.artifacts import sha256_of
from ktrdr.backend.problems import problem_of
from ktrdr.errors import (
    AnotherIncarnation,
    Conflict,
    InvalidInput,
    KtrdrError,
    NotFound,
    WorkerBusy,
)
from ktrdr.operations.model import WorkerType
from ktrdr.protocol.messages import (
    Capabilities,
    CheckpointNews,
    DeliverRequest,
    ProgressView,
    RegisterRequest,
    RegisterResponse,
    ReportRequest,
    ReportResponse,
    StartAccepted,
    StartJob,
)
from ktrdr.protocol.specs import canonical_json
from ktrdr.protocol.transports import Answer
from ktrdr.protocol.worker_key import bind
from ktrdr.workers.checkpoint_post import CheckpointPost
from ktrdr.workers.credentials import Credentials
from ktrdr.workers.delivery import Courier
from ktrdr.workers.outbox import entry_key
from ktrdr.workers.registration import Registration
from ktrdr.workers.slot import Entry, Slot
from ktrdr.workers.views import operation_view
from simulation.carrier import Link, Outbox, Uploads
from simulation.jobfiles import Cache, JobFiles, writes_checkpoints
from simulation.laws import Laws, result_of
from simulation.network import Message, Network, SimulatedTransport
from simulation.pulse import Pulse
from simulation.run import STEPS, Run
from simulation.shelf import Made, Shelf
from simulation.trace import Trace
from simulation.virtual_time import Process, SimulatedClock

__all__ = ["SimulatedWorker"]

_STARTS = ("/backtests/start", "/training/start")
_WRONG_S = 600.0  # at most, for a worker's clock at its start
_CHANGES = 0.05  # of the ends, at which a worker registers again in the same moment
_LOOK_S = 2.0  # between two looks at what a job tells of checkpoints
_POISON = 0.01  # of all operations


class SimulatedWorker:
    """A machine: ``start`` boots a process on it, ``crash`` kills it, ``freeze`` and ``thaw`` stop and continue it."""

    def __init__(
        self,
        worker_id: str,
        worker_type: WorkerType,
        network: Network,
        trace: Trace,
        random: Random,
        laws: Laws,
        *,
        gpu: bool,
        longest_s: float,
        doors: tuple[str, ...],
        shelf: Shelf,
    ) -> None:
        self._doors, self._shelf, self._cache = doors, shelf, Cache()
        self.worker_id, self.worker_type, self.gpu = worker_id, worker_type, gpu
        self._longest_s = longest_s  # of a job
        self.key = laws.passes.key_of(worker_id)
        self.token: str | None = None  # what its process was started with
        self.url = f"http://10.0.{int(worker_id[1:]) // 250}.{int(worker_id[1:]) % 250 + 1}:5003"
        self._network, self._trace, self._random = network, trace, random
        self.process: Process | None = None
        self.paused: asyncio.Event | None = None
        self._laws = laws
        self.outbox = Outbox(self._delivered)
        self.version = "1.1.0"
        self.skew_s = random.uniform(-_WRONG_S, _WRONG_S)  # of the machine's wall clock
        self.rough = True  # jobs may fail, processes may die
        self._incarnation = 0
        self._frozen_s = self._frozen_at = self.misled_at = 0.0
        network.endpoints[self.url] = self

    # --- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._incarnation += 1
        self.instance_id = bind(f"{self.worker_id}-{self._incarnation}", self.key)
        self.token = self._laws.passes.token_of(self.worker_id)
        self.process = Process(self.instance_id)
        self.slot = Slot()
        self._pulse = Pulse(self.worker_id, self.instance_id)
        self._begun: dict[str, int] = {}  # operation: newest attempt
        self._clock = clock = SimulatedClock(asyncio.get_running_loop())
        clock.jump(self.skew_s)
        transport = SimulatedTransport(self._network, self.url, self.process, endpoint=self)
        self._link = link = Link(
            transport, self._doors, token=self.token, key=self.key, timeout_s=10.0, uploads=Uploads()
        )
        link.cache = self._cache
        self._registration = Registration(
            link, request=self._introduction, accept=self._accepted, clock=clock, random=self._random
        )
        self._credentials = Credentials(None, self.token, self._registration.again)
        self._courier = Courier(
            link,
            self.outbox,
            self.worker_id,
            report=self._report,  # type: ignore[arg-type]
            on_unknown=self._registration.again,
            on_done=self._done,
            random=self._random,
        )
        self._trace.tell(f"{self.instance_id} starts")
        self.process.spawn(self._registration.run())
        self.process.spawn(self._courier.run())

    def crash(self) -> None:
        if self.process is not None:
            current = self.slot.current
            self._trace.fault("worker crash", self.instance_id, current.run.operation_id if current else None)
            self.process.kill()
        self.process = None
        self.thaw()

    def set_clock(self, skew_s: float) -> None:
        """Somebody sets the machine's wall clock."""
        if self.process is not None:
            self._clock.jump(skew_s - self.skew_s)
        self.skew_s = skew_s

    def _boot_again(self) -> None:
        if self.process is None:
            self.start()

    def freeze(self) -> None:
        if self.paused is None:
            self.paused, self._frozen_at = asyncio.Event(), self._trace.now()

    def thaw(self) -> None:
        if self.paused is not None:
            self._frozen_s += self._trace.now() - self._frozen_at
            paused, self.paused = self.paused, None
            paused.set()

    async def leave(self) -> None:
        """A graceful stop: say so, give the job back, end."""
        process = self.process
        if process is None or self.slot.closed:
            return
        self.slot.closed = True
        self._trace.tell(f"{self.instance_id} stops gracefully")
        if self.slot.current is not None:
            self.slot.current.run.stop("released", 1.0)
        await asyncio.sleep(5.0)
        if self.process is process:
            process.kill()
            self.process = None

    # --- the contract -------------------------------------------------------------------------------------------

    async def handle(self, message: Message) -> Answer:
        """As the worker's guard: what it does not know makes it ask the backend first."""
        if self._closed_to(message) and not await self._credentials.admit(_shown(message)):
            self._trace.situations["start without the worker's credential"] += 1
            if message.path.partition("?")[0] in _STARTS:
                self._laws.turned_away.add((message.json["task_id"], message.json["attempt"]))
            return Answer(401, {}, b"{}")
        return self._answered(message)

    def at_once(self, message: Message) -> Answer | None:
        """Whatever a worker is asked with the right credential, its answer waits for nothing."""
        return None if self._closed_to(message) else self._answered(message)

    def _closed_to(self, message: Message) -> bool:
        guarded = self._credentials.needed and message.path.partition("?")[0] != "/health"
        return guarded and not self._credentials._opens(_shown(message))

    def _answered(self, message: Message) -> Answer:
        try:
            return self._route(message)
        except KtrdrError as error:
            problem = problem_of(error)
            return Answer(problem.status, {}, problem.model_dump_json(exclude_none=True).encode())

    def _route(self, message: Message) -> Answer:
        path = message.path.partition("?")[0]
        if path == "/health":
            if message.answer is None:  # a probe that comes minutes late tells it that it is known
                self.misled_at = self._trace.now()
            self._registration.heard()
            self._courier.nudge()
            return self._probed(message)
        if path in _STARTS:
            return _answer(202, self._take(StartJob.model_validate(message.json), message.path))
        operation_id = path.split("/")[4]
        if path.endswith("/cancel"):
            attempt = int(message.path.rpartition("=")[2])
            return _answer(202, operation_view(self._cancel(operation_id, attempt), self.worker_id))
        return _answer(200, operation_view(self.slot.entry(operation_id), self.worker_id))

    def _probed(self, message: Message) -> Answer:
        entry = self.slot.visible()
        if entry is not None:
            message.vouches = (entry.run.operation_id, entry.run.attempt)
        status = "idle" if entry is None or entry.delivery == "waiting" else "busy"
        return self._pulse.answer(
            "draining" if self.slot.closed else status,
            message.vouches,
            entry.run.progress() if entry else None,
        )

    def _take(self, job: StartJob, path: str) -> StartAccepted:
        assert job.task_id is not None
        (meant,) = parse_qs(urlsplit(path).query)["instance_id"]
        if meant != self.instance_id:
            self._trace.situations["start meant for the incarnation before"] += 1
            raise AnotherIncarnation(meant, self.instance_id)
        if job.spec.kind != self.worker_type.value:
            raise InvalidInput(f"This is a {self.worker_type.value} worker.")
        operation_id, begun = job.task_id, []

        def begin() -> Any:
            begun.append(self._new_run(operation_id, job))
            return begun[0]

        try:
            run = self.slot.take(operation_id, job.attempt, begin)
        except WorkerBusy:
            current = self.slot.current
            if current is not None and current.run.operation_id == operation_id:
                current.run.stop("cancelled", 10.0)
            raise
        except Conflict:
            self._trace.situations["outdated attempt refused"] += 1
            raise
        if begun:
            newest = self._begun.get(operation_id, 0)
            self._laws.demand(
                newest != job.attempt, "a worker runs an attempt once", self.instance_id, operation_id
            )
            self._laws.demand(
                newest < job.attempt,
                "a worker begins no outdated attempt",
                f"{self.instance_id} had attempt {newest} and begins {job.attempt}",
                operation_id,
            )
            self._begun[operation_id] = job.attempt
            assert self.process is not None
            self._laws.begun[operation_id, job.attempt] = self.process
            self.process.spawn(self._work(self.slot.current))  # type: ignore[arg-type]
            if begun[0].files is not None:
                self.process.spawn(self._post(begun[0]))
        return StartAccepted(operation_id=run.operation_id, worker_id=self.worker_id, attempt=run.attempt)

    def _new_run(self, operation_id: str, job: StartJob) -> Run:
        random = Random(f"{operation_id}/{job.attempt}/{self.worker_id}")
        fate, dice = "completed", random.random()
        if dice < 0.03:
            fate = "failed"
        elif self.rough and dice < 0.08:
            fate = "child_died"
        if Random(f"poison/{operation_id}").random() < _POISON:
            fate = "poison"
        duration = (
            random.uniform(0.05, 2.0) if random.random() < 0.3 else random.uniform(2.0, self._longest_s)
        )
        files = self._files(operation_id, job) if writes_checkpoints(operation_id) else None
        now, watch = self._clock.now(), self._stop_watch()
        return Run(operation_id, job.attempt, job.spec, now, duration, fate, watch, files)

    def _files(self, operation_id: str, job: StartJob) -> JobFiles:
        files = JobFiles(job, self._cache, self._shelf, self._clock, STEPS)
        self._laws.checkpoints.begun(operation_id, job.attempt, files.used, files.first, files.refused)
        if files.used:
            self._trace.tell(f"{self.instance_id} goes on after {files.first} steps", operation_id)
        return files

    def _post(self, run: Any) -> Coroutine[Any, Any, None]:
        """The real post, which looks at what this run tells."""
        newest: list[CheckpointNews] = []

        def report(news: CheckpointNews) -> ReportRequest:
            newest[:] = [news]
            status: Any = "draining" if self.slot.closed else "busy"
            return ReportRequest(instance_id=self.instance_id, worker_status=status, checkpoint=news)

        def answered(answer: ReportResponse, attempt: int) -> None:
            news = newest[0]
            if news.digest is not None and not answer.stop:
                self._laws.checkpoints.told(run.operation_id, run.attempt, news.digest)
            self._stop(answer.stop, attempt)

        post = CheckpointPost(
            self._link,
            self.worker_id,
            report=report,
            on_unknown=self._registration.again,
            on_answer=answered,
            look_every_s=_LOOK_S,
        )
        return post.follow(run)

    def _made(self, run: Run) -> str:
        """The file that is the job's result."""
        self._cache.made = Made(run.operation_id, run.attempt, STEPS, checkpoint=False)
        return self._cache.put(f"the result of {run.operation_id}, attempt {run.attempt}".encode())

    def _delivered(self, delivery: DeliverRequest) -> None:
        for digest in delivery.artifacts.values():
            self._cache.delete(digest)
        self._laws.told_delivered(self.worker_id, delivery)

    def _stop_watch(self) -> Callable[[], float]:
        """Seconds from now on in which this machine was not frozen."""
        began = self._worked_s()
        return lambda: self._worked_s() - began

    def _worked_s(self) -> float:
        """A job may begin in the moment of a freeze: its start was let in, and waited."""
        until = self._trace.now() if self.paused is None else self._frozen_at
        return until - self._frozen_s

    def _cancel(self, operation_id: str, attempt: int | None) -> Entry:
        entry = self.slot.entry(operation_id)
        if attempt is not None and attempt != entry.run.attempt:
            raise Conflict(f"Attempt {attempt} does not run here.")
        if entry.ending is None:
            entry.run.stop("cancelled", 10.0)
        return entry

    # --- jobs ---------------------------------------------------------------------------------------------------

    async def _work(self, entry: Entry) -> None:
        run: Any = entry.run
        while run.left_s > 1e-9 and run.stopping is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(run.stop_requested.wait(), run.wait_s)
            if self.paused is not None:
                await self.paused.wait()
            if run.files is not None:
                run.files.reached(run.done, stopping=run.stopping is not None)
        if run.fate == "poison" and run.stopping is None:
            self._trace.fault("job takes its machine down", self.instance_id, run.operation_id)
            asyncio.get_running_loop().call_later(self._random.uniform(1.0, 30.0), self._boot_again)
            self.crash()
            return
        if run.stopping is not None:
            await asyncio.sleep(0.2)  # the time in which a job hears of it
        if self.paused is not None:
            await self.paused.wait()
        ending = self._ending(run)
        run.ended.set_result(None)
        self.slot.leave(run, ending, self._clock.now())
        self._trace.tell(f"{self.instance_id} ended attempt {run.attempt}: {ending.status}", run.operation_id)
        if self._network.weather.drop and self._random.random() < _CHANGES:
            self._registration.again()  # something else is to be told as well, say
        entry.delivery = "sending"
        self.slot.sent(entry, acknowledged=await self._courier.deliver(ending))

    def _ending(self, run: Run) -> DeliverRequest:
        status = run.stopping or run.fate
        more: dict[str, Any] = {}
        if status == "completed":
            more["summary"] = result_of(
                run.operation_id, run.attempt, self.worker_id, sha256_of(canonical_json(run.spec))
            )
            more["summary"]["strategy"] = run.spec.strategy_name
            name = "model" if self.worker_type is WorkerType.TRAINING else "report"
            more["artifacts"] = {name: self._made(run)}
        if run.files is not None:
            more["checkpoint_digest"] = run.files.ended(status)
        if status in ("failed", "child_died"):
            more["error"] = f"the job {status}"
        return DeliverRequest(
            operation_id=run.operation_id,
            attempt=run.attempt,
            status=status,  # type: ignore[arg-type]
            progress=ProgressView.of(run.progress()),
            **more,
        )

    # --- backend ------------------------------------------------------------------------------------------------

    async def _introduction(self) -> RegisterRequest:
        current = self.slot.current
        outbox = await self._courier.uploaded_entries()
        if outbox:
            self._trace.situations["outbox at registration"] += 1
        self._introduced = current.run.attempt if current else None
        return RegisterRequest(
            worker_id=self.worker_id,
            worker_type=self.worker_type.value,
            endpoint_url=self.url,
            capabilities=Capabilities(gpu=self.gpu, version=self.version),
            instance_id=self.instance_id,
            current_operation_id=current.run.operation_id if current else None,
            current_attempt=current.run.attempt if current else None,
            outbox=outbox,
        )

    def _accepted(self, response: RegisterResponse) -> None:
        if any(self._is_being_sent(key) for key in response.acknowledged):
            self._trace.situations["end acknowledged while it is reported"] += 1
        self._credentials.learn(response.credential)
        self._laws.passes.learned(self.instance_id, response.credential)
        self._courier.acknowledge(response.acknowledged)
        self._stop(response.stop, self._introduced)

    def _is_being_sent(self, key: str) -> bool:
        entry = self.slot._entries.get(key.rpartition(":")[0])
        ending = None if entry is None or entry.delivery != "sending" else entry.ending
        return ending is not None and entry_key(ending) == key

    def _report(self, delivery: DeliverRequest) -> ReportRequest:
        status = "draining" if self.slot.closed else "idle" if self.slot.current is None else "busy"
        return ReportRequest(instance_id=self.instance_id, worker_status=status, delivery=delivery)  # type: ignore[arg-type]

    def _done(self, key: str) -> None:
        self.slot.acknowledged(key)

    def _stop(self, operation_ids: list[str], attempt: int | None) -> None:
        for operation_id in operation_ids:
            try:
                self._cancel(operation_id, attempt)
            except (Conflict, NotFound):
                continue


def _shown(message: Message) -> str:
    return message.headers.get("authorization", "").removeprefix("Bearer ")


def _answer(status: int, body: Any) -> Answer:
    return Answer(status, {}, body.model_dump_json().encode())
