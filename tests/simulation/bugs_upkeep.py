"""Planted bugs in what goes with time: retention, and the collection of artifacts."""

from __future__ import annotations

from simulation.mutant import Mutant, Patch

__all__ = ["UPKEEP_BUGS"]

_KEEPING, _GARBAGE = "backend/upkeep/housekeeping.py", "backend/upkeep/garbage.py"
_LEDGER, _REFERENCES, _COMPANY = (
    "operations/memory/ledger.py",
    "operations/references.py",
    "backend/cluster/company.py",
)


def _bug(name: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(name, (Patch(file, old, new),))


UPKEEP_BUGS = (
    _bug(
        "retention counts from the creation",
        _LEDGER,
        "if o.completed_at is not None and o.completed_at < before]",
        "if o.completed_at is not None and o.created_at < before]",
    ),
    _bug(
        "retention takes what has just ended",
        _KEEPING,
        "        end = now.wall - self._retention\n",
        "        end = now.wall\n",
    ),
    _bug(
        "a follower runs retention",
        _COMPANY,
        "return [self.mirror.run(), ",
        "return [self._backend.housekeeping.run(), self.mirror.run(), ",
    ),
    _bug(
        "a follower collects artifacts",
        _COMPANY,
        "return [self.mirror.run(), ",
        "return [self._backend.garbage.run(), self.mirror.run(), ",
    ),
    _bug(
        "garbage ignores checkpoints",
        _REFERENCES,
        'if column == "spec_digest" or not',
        'if column in ("spec_digest", "checkpoints", "checkpoint_digest") or not',
    ),
    _bug(
        "garbage ignores the results of operations",
        _REFERENCES,
        '            found.files |= digests\n            found.promised |= digests\n            found.documents |= digests & {artifacts.get("model")}\n',
        '            found.promised |= digests & {artifacts.get("model")}\n',
    ),
    Mutant(
        "garbage ignores the grace",
        (
            Patch(_GARBAGE, "if now - since >= self._grace_s:", "if now >= since:"),
            Patch(_GARBAGE, "unused_since=now - self._grace_s", "unused_since=now"),
        ),
    ),
)
