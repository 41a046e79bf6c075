"""How large a simulation is, and how rough: sizes and rates, nothing else."""

from __future__ import annotations

from dataclasses import dataclass, fields
from random import Random

__all__ = ["FAULTS", "SITUATIONS", "WITH_SEVERAL", "Size", "Weather"]

FAULTS = (
    "drop request",
    "drop answer",
    "delay",
    "duplicate",
    "duplicate minutes late",
    "reorder",
    "partition to worker",
    "partition to backend",
    "worker crash",
    "worker pause past lease",
    "job takes its machine down",
    "backend crash",
    "backend crash before commit",
    "backend crash after commit before dispatch",
    "backend crash after dispatch before answer",
    "store busy",
    "store slow",
    "stale read",
    "commit unknown: done",
    "commit unknown: lost",
    "clock jump forward",
    "clock jump back",
    "worker clock jump",
    "checkpoint torn",
)
"""All of them must fire in a run over the default seeds; one that never occurred proves nothing."""

SITUATIONS = (
    "assigned",
    "accepted",
    "refused",
    "unreachable",
    "adopted",
    "completed",
    "failed",
    "cancelled",
    "released",
    "lease expired",
    "worker lost",
    "given up",
    "not mine",
    "child died",
    "late result ignored",
    "result while cancelling",
    "released while cancelling",
    "worker lost while cancelling",
    "outbox at registration",
    "worker drained",
    "worker removed",
    "queue paused",
    "submission repeated",
    "backend restarted",
    "checkpoint recorded",
    "released with a checkpoint",
    "went on from a checkpoint",
    "torn checkpoint skipped",
    "resumed with a checkpoint",
    "outdated attempt refused",
    "start meant for the incarnation before",
    "end acknowledged while it is reported",
    "all cancelled",
    "change of nothing",
    "worker of another version",
    "retry",
    "retry refused",
    "resume refused",
    "refused because it would wait",
    "operation expired",
    "artifact collected",
    "token withdrawn",
    "withdrawn token refused",
    "stranger refused",
    "token of another scope refused",
    "key of another worker refused",
    "end of another's attempt ignored",
    "start without the worker's credential",
)

WITH_SEVERAL = (
    "backend freeze",
    "ledger cut off",
    "leader changed",
    "old leader's write refused",
    "submitted to a follower",
)
"""Faults and situations that must occur, too, in a run some of whose seeds have several backends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """``chaos_s`` is virtual: submissions and faults happen in it; afterwards everything heals. ``longest_s`` is a
    job's, undisturbed."""

    workers: int = 8
    operations: int = 240
    chaos_s: float = 750.0
    heal_s: float = 3600.0
    longest_s: float = 60.0
    backends: int | None = None  # None: as many as the seed has


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """Chances per message or write, and seconds between faults of machines (mean)."""

    drop: float = 0.02
    delay: float = 0.05
    duplicate: float = 0.03
    hold: float = 0.10  # a short delay that lets others overtake
    partition_every_s: float = 60.0
    crash_every_s: float = 45.0
    pause_every_s: float = 60.0
    backend_crash_every_s: float = 200.0
    armed_crash_every_s: float = 120.0
    store_trouble_every_s: float = 75.0
    commit_unknown: float = 0.008
    torn: float = 0.4  # of the checkpoints, damaged on disk
    clock_jump_every_s: float = 90.0
    backend_freeze_every_s: float = 100.0  # this and the next where there are several backends
    ledger_cut_every_s: float = 120.0

    @classmethod
    def of(cls, seed: int) -> Weather:
        """One seed's climate: each kind of fault is rare here and frequent there, because frequent ones hide others.

        A backend that dies every half minute never ends a lease, for example.
        """
        random, usual = Random(f"{seed}/climate"), cls()
        return cls(
            **{name: getattr(usual, name) * random.choice((0.3, 1.0, 2.0)) for name in _CHANCES},
            **{name: getattr(usual, name) * random.choice((0.5, 1.0, 2.0, 5.0)) for name in _PAUSES},
        )

    @classmethod
    def calm(cls) -> Weather:
        """No fault at all."""
        never = 1e12
        return cls(
            drop=0.0,
            delay=0.0,
            duplicate=0.0,
            hold=0.0,
            partition_every_s=never,
            crash_every_s=never,
            pause_every_s=never,
            backend_crash_every_s=never,
            armed_crash_every_s=never,
            store_trouble_every_s=never,
            commit_unknown=0.0,
            torn=0.0,
            clock_jump_every_s=never,
            backend_freeze_every_s=never,
            ledger_cut_every_s=never,
        )


_PAUSES = [field.name for field in fields(Weather) if field.name.endswith("_every_s")]
_CHANCES = [field.name for field in fields(Weather) if field.name not in _PAUSES]
