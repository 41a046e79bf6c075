"""The fence around what only the leader of several backends may write."""

from __future__ import annotations

from sqlalchemy import Connection, select

from ktrdr.errors import NotLeader
from ktrdr.operations.events import CancelRequested, Event, NotMine, Reported
from ktrdr.operations.sql.tables import cluster

__all__ = ["Fence"]

_ANYBODY = (CancelRequested, NotMine, Reported)


class Fence:
    """Refuses the writes of a backend that does not lead, or no longer.

    ``epoch`` is that of the term in which this backend believes to lead, None while it follows.

    Laws
    ----
    - A guarded write is part of the same transaction as the look at the ledger's epoch, and holds that row: while the
      write is under way no new term begins, and once one has begun every write of an earlier term is refused.
    - What any backend may do passes: a cancel that somebody asked for, and a worker's word that it does not know an
      attempt, or how far it is (the attempt is a fence of its own).
    """

    def __init__(self) -> None:
        self.epoch: int | None = None

    @staticmethod
    def guards(event: Event) -> bool:
        """Whether recording this event is the leader's."""
        return not isinstance(event, _ANYBODY)

    def admit(self, connection: Connection) -> None:
        """Let the leader's writes of this transaction go on.

        Raises
        ------
        NotLeader
            If this backend does not lead, or no longer.
        """
        mine = self.epoch
        if mine is None:
            raise NotLeader("This backend does not lead; the leader alone dispatches and hears workers.")
        now = connection.scalar(select(cluster.c.epoch).where(cluster.c.id == 1).with_for_update(read=True))
        if now != mine:
            raise NotLeader(
                f"This backend led in epoch {mine}; the ledger is in epoch {now}, led by another backend."
            )
