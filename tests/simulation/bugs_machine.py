"""Planted bugs in the state machine and the ledger."""

from __future__ import annotations

from simulation.mutant import Mutant, Patch

__all__ = ["MACHINE_BUGS"]

_MACHINE, _MOVES, _MEMORY = "operations/machine.py", "operations/moves.py", "operations/memory/ledger.py"
_STALE = "event.assignment != operation.assignment"
_GATE = "    if operation.status.terminal or _is_stale(operation, event):\n"
_LIMIT = "    if failures < moment.max_failures:\n"


def _bug(name: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(name, (Patch(file, old, new),))


def _reopened(event: str, move: str) -> str:
    """The gate with a hole in it: an event of the newest attempt moves what has failed."""
    return (
        f"    if isinstance(event, {event}) and operation.status is FAILED and not _is_stale(operation, event):\n"
        f"        return moves.{move}(operation, event, Moment(now, max_failures))\n{_GATE}"
    )


MACHINE_BUGS = (
    _bug("no attempt check on results", _MACHINE, _STALE, f"not isinstance(event, Finished) and {_STALE}"),
    _bug("no attempt check on progress", _MACHINE, _STALE, f"not isinstance(event, Progressed) and {_STALE}"),
    _bug("no attempt check on releases", _MACHINE, _STALE, f"not isinstance(event, Released) and {_STALE}"),
    _bug(
        "no attempt check on dead children",
        _MACHINE,
        _STALE,
        f"not isinstance(event, ChildDied) and {_STALE}",
    ),
    _bug("a late probe reopens what has failed", _MACHINE, _GATE, _reopened("Progressed", "run")),
    _bug("a late result reopens what has failed", _MACHINE, _GATE, _reopened("Finished", "finish")),
    _bug("cancel guard dropped", _MACHINE, "Finished: _ALL_CANCELLED", "Finished: _go(moves.finish, *_ENDS)"),
    _bug(
        "a release forgets the cancel",
        _MACHINE,
        "Released: _ALL_CANCELLED",
        "Released: _go(moves.release, PENDING)",
    ),
    _bug(
        "a lost worker forgets the cancel",
        _MACHINE,
        "WorkerLost: _ALL_CANCELLED",
        "WorkerLost: _go(moves.worker_lost, *_LOST)",
    ),
    _bug(
        "cancel lost while pending",
        _MACHINE,
        "CancelRequested: _go(moves.cancel_pending, CANCELLED)",
        "CancelRequested: _IGNORED",
    ),
    _bug(
        "cancel lost during dispatch",
        _MACHINE,
        "        Unreachable: _go(moves.unreachable, ASSIGNED),\n",
        "        Unreachable: _go(moves.unreachable, ASSIGNED),\n        CancelRequested: _IGNORED,\n",
    ),
    _bug(
        "no lease before the first probe",
        _MOVES,
        "        lease_expires_at=event.lease_expires_at,\n        not_before=None,\n        progress=None,",
        "        lease_expires_at=None,\n        not_before=None,\n        progress=None,",
    ),
    Mutant(
        "expiry is checked, then set",
        (
            Patch(
                _MOVES,
                "if operation.lease_expires_at != event.lease_expires_at:",
                "if operation.lease_expires_at is None:",
            ),
            Patch(
                "backend/dispatch/health.py",
                "        for operation in ended:\n",
                "        await asyncio.sleep(10.0)\n        for operation in ended:\n",
            ),
        ),
    ),
    _bug(
        "losses forgotten at the next attempt",
        _MOVES,
        "        attempt=attempt,\n",
        "        attempt=attempt,\n        failures=0,\n",
    ),
    _bug("no limit to losses", _MOVES, _LIMIT, "    if failures < 100 * moment.max_failures:\n"),
    _bug(
        "a refusal counts as a loss",
        _MOVES,
        "why, not_before=event.not_before)",
        "why, not_before=event.not_before, failures=operation.failures + 1)",
    ),
    _bug(
        "attempts keep their number",
        _MOVES,
        "    attempt = operation.attempt + 1\n",
        "    attempt = max(operation.attempt, 1)\n",
    ),
    _bug(
        "progress goes back",
        _MOVES,
        "(new.percentage, new.items_done) < (old.percentage, old.items_done)",
        "new.items_total < 0",
    ),
    _bug("what its worker ended is adopted again", _MOVES, "instance_id=None, **counts", "**counts"),
    _bug(
        "idempotency keys are not kept",
        _MEMORY,
        "            self._keys[new.idempotency_key] = new.operation_id\n",
        "            pass\n",
    ),
    Mutant(
        "the retry counter is in the backend's memory",
        (
            Patch(
                _MOVES,
                "    failures = operation.failures + 1\n    why",
                "    failures = _LOSSES[operation.operation_id] = _LOSSES.get(operation.operation_id, 0) + 1\n    why",
            ),
            Patch(_MOVES, "_ERROR_LENGTH = 8_000\n", "_ERROR_LENGTH = 8_000\n_LOSSES: dict[str, int] = {}\n"),
            Patch(
                "backend/wiring.py",
                "        self._loops: list[asyncio.Task[Any]] = []\n",
                "        self._loops: list[asyncio.Task[Any]] = []\n        from ktrdr.operations import moves\n\n        moves._LOSSES.clear()\n",
            ),
        ),
    ),
)
