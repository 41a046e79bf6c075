"""Planted bugs in the workers' half of the contract."""

from __future__ import annotations

from simulation.mutant import Mutant, Patch

__all__ = ["WORKER_BUGS"]

_SLOT, _COURIER, _REGISTRATION = "workers/slot.py", "workers/delivery.py", "workers/registration.py"


def _bug(name: str, file: str, old: str, new: str, *seeds: int) -> Mutant:
    return Mutant(name, (Patch(file, old, new),), seeds)


WORKER_BUGS = (
    _bug(
        "a worker starts an attempt twice",
        _SLOT,
        "if known is not None and attempt == known.run.attempt:",
        "if known is not None and attempt == -known.run.attempt:",
    ),
    _bug(
        "a worker starts an attempt that is outdated",
        _SLOT,
        "if known is not None and attempt < known.run.attempt:",
        "if known is not None and attempt < 0:",
    ),
    _bug(
        "an acknowledged end waits for ever",
        _SLOT,
        '        if entry.delivery == "sending":\n            entry.delivery = "done" if acknowledged else "waiting"',
        '        entry.delivery = "done" if acknowledged else "waiting"',
    ),
    _bug(
        "a result is forgotten while the backend is away",
        _COURIER,
        "        except (KtrdrError, OSError) as error:\n            if not self._complained:",
        "        except (KtrdrError, OSError) as error:\n            self._outbox.remove(key)\n            if not self._complained:",
    ),
    _bug(
        "a worker that was forgotten does not register again",
        _REGISTRATION,
        "            if now >= due:\n                return\n",
        "            if now >= due:\n                self._heard_at = now\n                latest = now + 1e9\n",
    ),
)
