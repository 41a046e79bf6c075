"""How large a simulation is, and how rough: sizes and rates, nothing else."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FAULTS", "SITUATIONS", "Size", "Weather"]

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
    "backend crash",
    "backend crash before commit",
    "backend crash after commit before dispatch",
    "backend crash after dispatch before answer",
    "store busy",
    "store slow",
    "commit unknown: done",
    "commit unknown: lost",
    "clock jump forward",
    "clock jump back",
)
"""All of them must fire in a run over the default seeds; one that never occurred proves nothing."""

# Counted but not demanded: "not mine". A worker that lives never forgets what it accepted, and since a start whose
# record failed is told again, no fault here makes one answer so; the unit tests of the health loop do.
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
    "child died",
    "late result ignored",
    "result while cancelling",
    "outbox at registration",
    "worker drained",
    "worker removed",
    "submission repeated",
    "backend restarted",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """``chaos_s`` is virtual: submissions and faults happen in it; afterwards everything heals."""

    workers: int = 8
    operations: int = 240
    chaos_s: float = 600.0
    heal_s: float = 3600.0


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
    backend_crash_every_s: float = 120.0
    armed_crash_every_s: float = 60.0
    store_trouble_every_s: float = 75.0
    commit_unknown: float = 0.008
    clock_jump_every_s: float = 90.0

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
            clock_jump_every_s=never,
        )
