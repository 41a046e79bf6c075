"""What a worker and a job's process share: one folder per attempt, with the ticket in it and the outcome out of it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ktrdr.logs import LogFormat

__all__ = ["DISK_EXIT", "CheckpointLog", "Outcome", "RunFolder", "Ticket"]

DISK_EXIT = os.EX_IOERR  # of a job's process whose end the disk did not take


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What the job's process needs to know; the credential travels apart and is never on disk.

    ``job`` is the import path of the job body, ``module:function``. ``spec`` is JSON. ``checkpoints`` are digests from
    which to go on, the best first; the numbers after it are how often to write one.
    """

    operation_id: str
    attempt: int
    job: str
    spec: str
    cache: str
    api_urls: str
    worker_id: str = ""
    log_level: str = "INFO"
    log_format: LogFormat = "text"
    checkpoints: tuple[str, ...] = ()
    checkpoint_s: float = 0.0
    checkpoint_epochs: int = 0
    checkpoint_bars: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the job ended, as its own process tells it; a killed process leaves none.

    ``child_died``: the machine, not the job, is at fault.
    """

    status: Literal["completed", "failed", "cancelled", "child_died"]
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    out_of_memory: bool = False


@dataclass(slots=True)
class CheckpointLog:
    """What a job tells of checkpoints while it runs: ``saved`` by this attempt, newest first, whose files are durable;
    ``refused`` ones it was given; ``notes`` for the operation's story, in their order."""

    saved: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one attempt."""

    root: Path

    @property
    def log(self) -> Path:
        """Everything the job printed and logged."""
        return self.root / "job.log"

    @property
    def bridge(self) -> Path:
        """The progress bridge's file."""
        return self.root / "progress"

    @property
    def scratch(self) -> Path:
        """Free for the job to use; removed with the folder."""
        return self.root / "scratch"

    def prepare(self, ticket: Ticket) -> None:
        """Make the folder, for this user only, with the ticket in it."""
        self.root.mkdir(parents=True, mode=0o700)
        self.scratch.mkdir()
        self.log.touch()
        (self.root / "ticket.json").write_text(json.dumps(asdict(ticket)))

    def ticket(self) -> Ticket:
        """The ticket that ``prepare`` left."""
        stored = json.loads((self.root / "ticket.json").read_text())
        return Ticket(**{**stored, "checkpoints": tuple(stored["checkpoints"])})

    def finish(self, outcome: Outcome) -> None:
        """Leave the outcome; it appears whole or not at all."""
        self._leave("outcome", asdict(outcome))

    def tell_checkpoints(self, told: CheckpointLog) -> None:
        """Replace what is told of checkpoints; whole or not at all."""
        self._leave("checkpoints", asdict(told))

    def _leave(self, name: str, content: dict[str, Any]) -> None:
        beside = self.root / f"{name}.part"
        beside.write_text(json.dumps(content, allow_nan=False))
        os.replace(beside, self.root / f"{name}.json")

    def checkpoints(self) -> CheckpointLog:
        """What the job has told of checkpoints so far."""
        try:
            return CheckpointLog(**json.loads((self.root / "checkpoints.json").read_text()))
        except FileNotFoundError:
            return CheckpointLog()

    def outcome(self) -> Outcome | None:
        """The outcome, or None if the job's process did not come so far."""
        try:
            return Outcome(**json.loads((self.root / "outcome.json").read_text()))
        except FileNotFoundError:
            return None
