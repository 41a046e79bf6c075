"""Planted bugs in the workers' half of the contract."""

from __future__ import annotations

from simulation.mutant import Mutant, Patch

__all__ = ["WORKER_BUGS"]

_SLOT, _COURIER, _REGISTRATION = "workers/slot.py", "workers/delivery.py", "workers/registration.py"


def _bug(name: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(name, (Patch(file, old, new),))


WORKER_BUGS = (
    _bug(
        "a worker starts an attempt twice",
        _SLOT,
        "if known is not None and attempt == known.run.attempt:",
        "if known is not None and attempt == -known.run.attempt:",
    ),
    _bug(
        "a result is forgotten while the backend is away",
        _COURIER,
        "        except (KtrdrError, OSError) as error:\n            if not self._complained:",
        "        except (KtrdrError, OSError) as error:\n            self._outbox.remove(key)\n            if not self._complained:",
    ),
)
