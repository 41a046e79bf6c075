"""Planted bugs in what becomes of checkpoints: recorded, verified, told, chosen, kept."""

from __future__ import annotations

from simulation.mutant import Mutant, Patch

__all__ = ["CHECKPOINT_BUGS"]

_MOVES, _MACHINE, _SERVICE = "operations/moves.py", "operations/machine.py", "backend/operations/service.py"
_FILES, _DISPATCH = "backend/operations/checkpoints.py", "backend/dispatch/dispatcher.py"


def _bug(name: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(name, (Patch(file, old, new),))


CHECKPOINT_BUGS = (
    _bug(
        "no attempt check on checkpoints",
        _MACHINE,
        "event.assignment != operation.assignment",
        "not isinstance(event, Checkpointed) and event.assignment != operation.assignment",
    ),
    _bug(
        "a checkpoint is acknowledged before its commit",
        _SERVICE,
        "            transition = await self.apply(news.operation_id, event)\n",
        '            self._fleet.spawn(self.apply(news.operation_id, event), "checkpoint")\n            return True\n',
    ),
    _bug(
        "an attempt is not told of checkpoints",
        _DISPATCH,
        "            checkpoints=await self._operations.resume_points(operation) or None,\n",
        "",
    ),
    _bug(
        "the older checkpoint is tried first",
        _FILES,
        "key=lambda digest: -done[digest]",
        "key=lambda digest: done[digest]",
    ),
    _bug(
        "a checkpoint is dropped although it is needed",
        _FILES,
        "set(digests).difference(needed)",
        "set(digests).union(needed)",
    ),
    _bug(
        "a release leaves its checkpoint behind",
        _MOVES,
        "    kept, drop = _newer(operation, event.checkpoint_digest)\n"
        '    kept["progress"] = _forward(operation.progress, event)\n',
        "    kept, drop = _newer(operation, None)\n"
        '    kept["progress"] = _forward(operation.progress, event)\n',
    ),
    _bug(
        "a resume takes damaged checkpoints",
        _FILES,
        "tuple(d for d in known if self._artifacts.intact(d))",
        "known",
    ),
    _bug(
        "a checkpoint is recorded unverified",
        _FILES,
        "        if not await asyncio.to_thread(self._artifacts.intact, digest):\n",
        "        if not digest:\n",
    ),
)
