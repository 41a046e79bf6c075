"""Planted bugs in who may do what: tokens, their withdrawal, and the keys of workers."""

from __future__ import annotations

from simulation.mutant import Mutant, Patch

__all__ = ["ACCESS_BUGS"]

_ENROL, _SERVICE, _WIRING = (
    "backend/dispatch/enrolment.py",
    "backend/operations/service.py",
    "backend/wiring.py",
)
_TOKENS, _DOORMAN, _KEYS = "backend/access/tokens.py", "backend/access/doorman.py", "protocol/worker_key.py"


def _bug(name: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(name, (Patch(file, old, new),))


ACCESS_BUGS = (
    _bug(
        "the key of a report is not checked",
        _ENROL,
        "        _check_key(key, worker_id, worker.record.instance_id)\n",
        "",
    ),
    _bug(
        "a withdrawn token still works",
        _TOKENS,
        "        self._known.pop(token.token_id, None)\n        self._changed()\n"
        "        _log.info(\"Token '%s' was revoked\", name)\n",
        "        self._known.setdefault(token.token_id, token)\n        self._read_at = self._clock.monotonic()\n",
    ),
    _bug(
        "workers of a withdrawn token stay",
        "backend/dispatch/health.py",
        "            if worker is not None and worker.record.enrolled_by in worthless:\n",
        "            if worker is not None and worker.record.enrolled_by in ():\n",
    ),
    _bug(
        "another backend never hears of a withdrawal",
        _TOKENS,
        "                        self._known = {token.token_id: token for token in found}\n",
        "                        self._known |= {token.token_id: token for token in found}\n",
    ),
    _bug(
        "who shows a token that is none is let in",
        _DOORMAN,
        "        if authorization:\n            raise NotAuthorised(\n",
        "        if authorization:\n            return ENROLMENT\n            raise NotAuthorised(\n",
    ),
    _bug(
        "a reader registers as a worker",
        _DOORMAN,
        "    if wanted & principal.allowed:\n",
        "    if wanted & principal.allowed or Scope.WORKER in wanted:\n",
    ),
    _bug(
        "a worker's token opens what is an administrator's",
        _DOORMAN,
        "    if wanted & principal.allowed:\n",
        "    if wanted & principal.allowed or Scope.WORKER in principal.allowed:\n",
    ),
    _bug(
        "a worker ends what another one has",
        _SERVICE,
        'theirs = operation.worker_id == worker_id and proves(key, operation.instance_id or "")\n'
        "        instance = operation.instance_id if theirs else None\n",
        'worker_id = operation.worker_id or ""\n        instance = operation.instance_id\n',
    ),
    Mutant(
        "the keys of workers are forgotten over a restart of the backend",
        (
            Patch(
                _WIRING,
                "            self.registry.put(record, verified=False)\n",
                "            self.registry.put(\n"
                '                replace(record, instance_id=record.instance_id.rpartition("-k")[0]), verified=False\n'
                "            )\n",
            ),
            Patch(
                _WIRING,
                "from dataclasses import dataclass\n",
                "from dataclasses import dataclass, replace\n",
            ),
        ),
    ),
    _bug(
        "every worker is called with the same credential",
        _KEYS,
        'message = f"ktrdr call {worker_id} {instance_id}"',
        'message = f"ktrdr call {worker_id[:0]}{instance_id[:0]}"',
    ),
)
