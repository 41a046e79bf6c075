"""Planted bugs in who is chosen: the order of the queue, GPUs, turns, versions."""

from __future__ import annotations

from simulation.mutant import Mutant, Patch

__all__ = ["CHOICE_BUGS"]

_REGISTRY, _DISPATCH = "backend/fleet/registry.py", "backend/dispatch/dispatcher.py"
_GROUPS = "groups = [(True,)] if require_gpu else [(True,), (False,)] if prefer_gpu else [(True, False)]"


def _bug(name: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(name, (Patch(file, old, new),))


CHOICE_BUGS = (
    _bug(
        "GPU workers do not come first",
        _REGISTRY,
        _GROUPS,
        "groups = [(True,)] if require_gpu else [(True, False)]",
    ),
    _bug(
        "what prefers a GPU waits for one",
        _REGISTRY,
        _GROUPS,
        "groups = [(True,)] if require_gpu or prefer_gpu else [(True, False)]",
    ),
    _bug(
        "a required GPU is only preferred",
        _REGISTRY,
        _GROUPS,
        "groups = [(True,), (False,)] if require_gpu or prefer_gpu else [(True, False)]",
    ),
    _bug("workers do not take turns", _REGISTRY, "        self._turn += 1\n", ""),
    _bug(
        "who registers again is the next in turn",
        _REGISTRY,
        "new.turn, new.last_selected, new.recent = old.turn, old.last_selected, old.recent",
        "new.last_selected, new.recent = old.last_selected, old.recent",
    ),
    _bug(
        "workers of any version get work",
        _REGISTRY,
        'new.serves = serves(self._version, str(record.capabilities.get("version", "0")))',
        "new.serves = True",
    ),
    _bug(
        "what a worker lost goes to it again",
        _DISPATCH,
        "rather_not = o.worker_id if o.failures else None",
        "rather_not = None",
    ),
    _bug(
        "the queue is served from its end",
        _DISPATCH,
        "        for o in pending:\n            if not free:",
        "        for o in reversed(pending):\n            if not free:",
    ),
    _bug(
        "a submission overtakes the queue",
        _DISPATCH,
        "at_rest = self._at_rest and not self._woken.is_set()",
        "at_rest = True",
    ),
    _bug(
        "nobody is told that a worker is free",
        _REGISTRY,
        "                self.on_free()\n",
        "                pass\n",
    ),
    _bug(
        "the specification of another operation is sent",
        _DISPATCH,
        "_SPEC.validate_json(content or await self._operations.store.spec(operation.spec_digest))",
        "self.__dict__.setdefault(\n"
        "                operation.operation_type,\n"
        "                _SPEC.validate_json(await self._operations.store.spec(operation.spec_digest)),\n"
        "            )",
    ),
)
