"""Planted bugs in what people order: submissions, retries, pauses, cancelling all."""

from __future__ import annotations

from simulation.mutant import Mutant, Patch

__all__ = ["PEOPLE_BUGS"]

_SUBMIT, _PAUSES = "backend/submission/orchestrator.py", "backend/operations/pauses.py"


def _bug(name: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(name, (Patch(file, old, new),))


PEOPLE_BUGS = (
    _bug("the priority of a submission is lost", _SUBMIT, "priority=request.priority,", "priority=0,"),
    _bug(
        "what a submission requires is lost",
        _SUBMIT,
        "requirements=work.requirements,",
        "requirements={},",
    ),
    _bug("a retry names no parent", _SUBMIT, "parent=earlier.operation_id,", "parent=None,"),
    _bug(
        "a retry forgets what was required",
        _SUBMIT,
        "requirements=earlier.requirements,",
        "requirements={},",
    ),
    _bug(
        "what is completed is retried",
        _SUBMIT,
        '        _require_unsuccessful(earlier, "retried")\n',
        "",
    ),
    _bug(
        "a repeated retry is a second operation",
        _SUBMIT,
        "            parent=earlier.operation_id,\n            idempotency_key=idempotency_key,\n",
        "            parent=earlier.operation_id,\n",
    ),
    _bug(
        "what cannot wait waits",
        _SUBMIT,
        'reject=request.when_busy == "reject"',
        "reject=False",
    ),
    _bug(
        "what is recorded is refused when it is submitted again",
        _SUBMIT,
        "            if idempotency_key is None or await self._use.store.by_key(idempotency_key) is None:\n"
        "                raise",
        "            raise",
    ),
    _bug(
        "cancelling all passes over what runs",
        "backend/operations/cancellation.py",
        "    for look in _LOOKS:\n",
        "    for look in _LOOKS[:1]:\n",
    ),
    _bug(
        "cancelling all takes what waits for what runs",
        "backend/operations/cancellation.py",
        "                operation_type=request.operation_type,\n",
        "",
    ),
    _bug(
        "letting one type go lets all go",
        _PAUSES,
        "self._know(await self._store.set_paused(types, None))",
        "self._know(await self._store.set_paused(tuple(OperationType), None))",
    ),
)
