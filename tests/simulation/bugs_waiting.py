"""Planted bugs after which something that should happen never does, and bugs that a restart brings about."""

from __future__ import annotations

from simulation.mutant import Mutant, Patch

__all__ = ["WAITING_BUGS"]

_PAUSES, _LEASES, _REGISTRY = (
    "backend/operations/pauses.py",
    "backend/fleet/leases.py",
    "backend/fleet/registry.py",
)
_SLOT, _REGISTRATION = "workers/slot.py", "workers/registration.py"


def _bug(name: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(name, (Patch(file, old, new),))


WAITING_BUGS = (
    _bug(
        "a pause is forgotten at a restart of the backend",
        _PAUSES,
        "            self._know(await self._store.set_paused(types, now))\n",
        "            pass\n",
    ),
    Mutant(
        "pauses are not read at a restart of the backend",
        (
            Patch("backend/wiring.py", "        await self.operations.pauses.read()\n", ""),
            Patch("backend/dispatch/dispatcher.py", "        await self._operations.pauses.read()\n", ""),
        ),
    ),
    _bug(
        "leases never end",
        _LEASES,
        "        return [o for o in watched if now - self._seen[o.operation_id].vouched_at >= self._lease_s]\n",
        "        return [o for o in watched if now < self._seen[o.operation_id].vouched_at]\n",
    ),
    _bug(
        "a reserved worker stays in the index of free workers",
        _REGISTRY,
        "        worker.busy_with = None\n        worker.revision += 1\n        self._settle(worker)\n",
        "        worker.busy_with = None\n        worker.revision += 1\n",
    ),
    _bug(
        "an outdated attempt is started",
        _SLOT,
        "if known is not None and attempt < known.run.attempt:",
        "if known is not None and attempt < 0:",
    ),
    _bug(
        "an acknowledged end waits for ever",
        _SLOT,
        '        if entry.delivery == "sending":\n            entry.delivery = "done" if acknowledged else "waiting"\n',
        '        if entry.ending is not None:\n            entry.delivery = "done" if acknowledged else "waiting"\n'
        "            self._owed[entry.run.operation_id] = entry\n",
    ),
    _bug(
        "a forgotten worker does not register again",
        _REGISTRATION,
        "            if now >= due:\n                return\n            try:\n                async with asyncio.timeout(due - now):  # asyncio.wait_for (3.11) may lose a cancel\n                    await self._again.wait()\n            except TimeoutError:\n                continue\n            return\n",
        "            await asyncio.sleep(max(due - now, 1.0))\n",
    ),
)
