"""Planted bugs in what several backends of one ledger do together: fence, roles, mirror, keys."""

from __future__ import annotations

from simulation.mutant import Mutant, Patch

__all__ = ["COMPANY_BUGS"]

_FENCE, _ROLES, _COMPANY = "operations/sql/fence.py", "backend/cluster/roles.py", "backend/cluster/company.py"
_WIRING, _SUBMIT = "backend/wiring.py", "backend/submission/orchestrator.py"


def _bug(name: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(name, (Patch(file, old, new),))


COMPANY_BUGS = (
    _bug(
        "the fence does not compare epochs", _FENCE, "        if now != mine:\n", "        if now is None:\n"
    ),
    Mutant(
        "a follower dispatches",
        (
            Patch(
                _COMPANY,
                "        return [self.mirror.run(), ",
                "        return [*self._backend.leading(), self.mirror.run(), ",
            ),
            Patch(
                _FENCE,
                '            raise NotLeader("This backend does not lead; the leader alone dispatches and hears workers.")',
                "            return",
            ),
        ),
    ),
    _bug(
        "a leader that lost the lock goes on",
        _ROLES,
        "    def _elected(self) -> None:\n",
        "    def _elected(self) -> None:\n        if self.leadership.epoch is None:\n            return\n",
    ),
    _bug("a leader that follows goes on to deliver", _ROLES, "        await self._leave()\n", ""),
    _bug(
        "a follower keeps no idempotency keys",
        _SUBMIT,
        "            idempotency_key=idempotency_key,\n            requirements=requirements,\n",
        "            idempotency_key=idempotency_key if use.fresh.__self__.leads else None,\n"
        "            requirements=requirements,\n",
    ),
    Mutant(
        "a second term goes on with the leases of the first",
        (
            Patch(
                _WIRING,
                "        self.operations.leases.honour_all()\n        for operation in live:\n",
                "        for operation in live:\n",
            ),
            Patch(
                _COMPANY,
                "            backend.operations.leases.honour_all()  # of interest to a leader only\n",
                "",
            ),
        ),
    ),
)
