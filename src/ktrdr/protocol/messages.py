"""The messages between client, backend and worker; one model per message, the same on every side."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from ktrdr.operations.jsontext import dump, plain_text
from ktrdr.operations.model import OperationStatus, OperationType, WorkerType
from ktrdr.operations.progress import Progress
from ktrdr.protocol.specs import JobSpec

__all__ = [
    "BackendHealth",
    "Capabilities",
    "CheckpointNews",
    "DeliverRequest",
    "HealthView",
    "MetricsView",
    "OperationList",
    "OperationView",
    "Problem",
    "ProblemItem",
    "ProgressView",
    "RegisterRequest",
    "RegisterResponse",
    "ReportRequest",
    "ReportResponse",
    "StartAccepted",
    "StartJob",
    "WorkerList",
    "WorkerMetrics",
    "WorkerMetricsRow",
    "WorkerStatus",
    "WorkerView",
]

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
WorkerStatus = Literal["available", "busy", "draining", "temporarily_unavailable"]
_DEEPEST, _LARGEST = 32, 128 << 10
_FEW, _SHORT_KEY, _SHORT_TEXT, _WORD = 64, 50, 100, 2**63  # at twelve bytes a character it is below _LARGEST


def _moderate(value: dict[str, Any]) -> dict[str, Any]:
    """What is taken in must also go out again, in lists of hundreds; and writers of JSON give up at a depth that its
    readers still take."""
    if _plainly_small(value):
        return value
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            break
    else:
        raise ValueError(f"nested more than {_DEEPEST} levels deep")
    if len(dump(value)) > _LARGEST:
        raise ValueError(f"more than {_LARGEST} characters of JSON")
    return value


def _plainly_small(value: dict[str, Any]) -> bool:
    """Nearly everything that a job says of itself, a thousand times in a round of probes: a few flat figures, which
    are below the limit however they are written."""
    if len(value) > _FEW:
        return False
    for key, item in value.items():
        kind = item.__class__
        small = (
            item is None
            or kind in (float, bool)
            or (kind is str and len(item) <= _SHORT_TEXT)
            or (kind is int and -_WORD < item < _WORD)
        )
        if not small or len(key) > _SHORT_KEY:
            return False
    return True


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


Figures = Annotated[dict[str, Any], AfterValidator(_moderate)]
Text = Annotated[str, BeforeValidator(lambda value: plain_text(value) if isinstance(value, str) else value)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Message(BaseModel):
    """Root of all messages: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ProblemItem(Message):
    """One fault in a request."""

    pointer: Text
    message: Text
    line: int | None = None
    column: int | None = None


class Problem(BaseModel):
    """RFC 9457 problem details, flat; ``type`` is ``urn:ktrdr:problem:<slug>``."""

    model_config = ConfigDict(frozen=True, extra="allow")
    type: str
    title: str
    status: int
    detail: Text
    instance: Text | None = None
    errors: list[ProblemItem] = []


class Capabilities(Message):
    """What a worker's machine has."""

    cores: Count = 1
    memory_gb: Amount = 0.0
    gpu: bool = False
    gpu_type: Literal["CUDA", "MPS"] | None = None
    gpu_count: Count = 0
    gpu_memory_gb: Amount = 0.0
    version: Text = Field(default="0", max_length=64)


class ProgressView(Message):
    """Progress as clients see it; 100 at completion."""

    percentage: float = 0.0
    message: Text = Field(default="", max_length=4_000)
    items_done: Count = 0
    items_total: Count = 0
    context: Figures = {}

    @classmethod
    def of(cls, progress: Progress | None) -> Self:
        """The view of what a job said; before it said anything, nothing done of nothing."""
        if progress is None:
            return cls()
        return cls(
            percentage=progress.percentage,
            message=progress.message,
            items_done=progress.items_done,
            items_total=progress.items_total,
            context=dict(progress.context),
        )

    def told(self) -> Progress:
        """What the job said; the percentage follows from it."""
        return Progress(self.items_done, self.items_total, self.message, self.context)


class DeliverRequest(Message):
    """The end of one attempt, as the worker delivers it (pushed in a report, or from the outbox at registration)."""

    operation_id: Identifier
    attempt: int
    status: Literal["completed", "failed", "cancelled", "released", "child_died"]
    summary: Figures = {}
    artifacts: dict[str, Digest] = {}
    error: Text | None = None
    out_of_memory: bool = False
    checkpoint_digest: Digest | None = None
    progress: ProgressView | None = Field(default=None, description="the last that the job said of itself")


class RegisterRequest(Message):
    """A worker makes itself known. Idempotent."""

    worker_id: Identifier
    worker_type: Literal["backtesting", "training", "gpu_host", "cpu_training"]
    endpoint_url: str = Field(max_length=512)
    capabilities: Capabilities = Capabilities()
    instance_id: Identifier
    current_operation_id: Identifier | None = None
    current_attempt: int | None = None
    outbox: list[DeliverRequest] = []


class RegisterResponse(Message):
    """``stop``: operations the worker must end (their attempt no longer counts); ``acknowledged``: outbox entries
    (``operation_id:attempt``) that are safe in the ledger; ``credential``: what the backend will show this incarnation
    of the worker when it calls, None where no credentials are used."""

    worker_id: str
    worker_type: WorkerType
    status: WorkerStatus
    message: str
    stop: list[str] = []
    acknowledged: list[str] = []
    credential: str | None = Field(default=None, repr=False)


class CheckpointNews(Message):
    """What a running attempt says of checkpoints; the file of ``digest`` was uploaded before."""

    operation_id: Identifier
    attempt: int
    digest: Digest | None = Field(default=None, description="the newest checkpoint")
    refused: list[Digest] = Field(
        default=[], max_length=8, description="given to the attempt and found unusable"
    )
    notes: list[Annotated[Text, Field(max_length=500)]] = Field(
        default=[], max_length=16, description="lines for the operation's story"
    )


class ReportRequest(Message):
    """A worker pushes a change of its state; with ``delivery`` the slot is free at once."""

    instance_id: Identifier
    worker_status: Literal["idle", "busy", "draining"]
    delivery: DeliverRequest | None = None
    checkpoint: CheckpointNews | None = None


class ReportResponse(Message):
    """``acknowledged`` is True once the delivery, or the news of a checkpoint, is durable in the ledger (or is known
    to be obsolete)."""

    acknowledged: bool
    stop: list[str] = []


class StartJob(Message):
    """Backend to worker, or by hand: without ``task_id`` the worker makes an id and the run is unfenced."""

    task_id: Identifier | None = None
    attempt: int = 1
    lease_s: float | None = None
    spec: JobSpec
    checkpoints: list[Digest] | None = Field(
        default=None, max_length=8, description="where to go on, the best first; unusable ones are skipped"
    )
    time_limit_s: float | None = Field(
        default=None, gt=0, le=1e9, description="so long may it run; then it is stopped and has failed"
    )
    traceparent: str | None = Field(
        default=None, max_length=64, description="of the trace to which the run belongs, as W3C writes it"
    )


class StartAccepted(Message):
    """The worker holds the operation now."""

    operation_id: str
    status: Literal["started"] = "started"
    worker_id: str
    attempt: int


class OperationView(Message):
    """An operation as clients see it, from the backend and from a worker alike."""

    operation_id: str
    operation_type: OperationType
    status: OperationStatus
    progress: ProgressView = ProgressView()
    worker_id: str | None = None
    attempt: int = 0
    failures: int = 0
    priority: int = 0
    time_limit_s: float | None = Field(default=None, description="so long may one attempt run")
    queue_position: int | None = None
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    error: str | None = None
    result_summary: dict[str, Any] | None = None
    artifacts: dict[str, str] = {}
    spec_digest: str | None = None
    parent_operation_id: str | None = None
    checkpoint_digest: str | None = Field(
        default=None, description="the newest checkpoint, from which the next attempt or a resume goes on"
    )
    waiting_for: str | None = Field(default=None, description="why a pending operation is not running yet")
    story: list[str] = []


class OperationList(Message):
    operations: list[OperationView]
    total: int
    next_cursor: str | None = None


class MetricsView(Message):
    """Metrics records from ``cursor`` on, under a key named by the operation's type (``epochs``, ``bars``)."""

    operation_id: str
    epochs: list[dict[str, Any]] | None = None
    bars: list[dict[str, Any]] | None = None
    history: list[dict[str, Any]] | None = None
    next_cursor: int


class HealthView(BaseModel):
    """A worker's answer to a probe; unknown keys are ignored so that newer workers can say more."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    status: Literal["healthy"] = "healthy"
    worker_status: Literal["idle", "busy", "draining"]
    current_operation: str | None = None
    current_attempt: int | None = None
    progress: ProgressView | None = None
    worker_id: str
    instance_id: str
    version: str
    uptime_s: float = 0.0
    cpu: float | None = None
    rss: int | None = None
    disk_free: int | None = None
    gpu: Figures = {}
    log_size: Count | None = Field(
        default=None, description="bytes that the current job has printed and logged"
    )


class WorkerView(Message):
    """A worker as clients see it."""

    worker_id: str
    worker_type: WorkerType
    endpoint_url: str
    status: WorkerStatus
    current_operation_id: str | None = None
    capabilities: Capabilities
    instance_id: str
    health_check_failures: int = 0
    last_health_check: datetime | None = None
    last_healthy_at: datetime | None = None
    registered_at: datetime
    reason: str | None = Field(default=None, description="why it gets no work, where it does not")
    seen: bool = Field(
        default=True,
        description="false: its status is what the ledger says; it did not answer yet since the backend started",
    )
    metadata: dict[str, Any] = {}
    recent_operations: list[str] = []


class WorkerList(Message):
    workers: list[WorkerView]
    total: int
    next_cursor: str | None = None


class WorkerMetricsRow(Message):
    """One worker in the metrics."""

    id: str
    type: WorkerType
    status: WorkerStatus
    current_operation: str | None = None
    health_failures: int = 0
    seen: bool = Field(default=True, description="false: not probed since the backend started")


class WorkerMetrics(Message):
    """The fleet in numbers."""

    total_workers: int
    by_status: dict[str, int]
    by_type: dict[str, int]
    workers: list[WorkerMetricsRow]
    backend_disk_free: int | None = Field(
        default=None, description="bytes free for KTRDR_HOME at the backend that answers"
    )


class BackendHealth(Message):
    """The backend's own health."""

    status: Literal["healthy"] = "healthy"
    version: str
    workers: int = Field(description="workers registered")
    paused: list[OperationType] = Field(default=[], description="of these nothing is dispatched")
    role: Literal["leader", "follower"] = Field("leader", description="the leader dispatches; all answer")
    epoch: int | None = Field(
        None, description="the newest term of a leader that is known; of several backends only"
    )
