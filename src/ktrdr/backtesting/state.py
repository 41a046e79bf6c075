"""Everything that changes while simulating, in one object that can be written down and taken up again."""

from __future__ import annotations

from typing import Any

import numpy as np

from ktrdr.backtesting import kernel
from ktrdr.bars import FloatArray
from ktrdr.errors import InvalidInput
from ktrdr.snapshot import Snapshot

__all__ = ["SimulationState"]

_FIRST_ROOM = 1024
_LAYOUT = {
    name: [[field, str(kind[0])] for field, kind in record.fields.items()]
    for name, record in (("account", kernel.STATE), ("fills", kernel.FILL), ("trades", kernel.TRADE))
    if record.fields is not None
}


class SimulationState:
    """A simulation of ``len(equity_T)`` bars, of which ``done`` are behind it.

    ``account`` is the kernel's state, an array of one record; ``fills`` and ``trades`` are arrays that grow by doubling,
    of which ``account[0].fills`` and ``account[0].trades`` records are used.
    """

    def __init__(self, initial_capital: float, bars: int) -> None:
        self.done = 0
        self.account: Any = kernel.new_state(initial_capital)
        self.equity_T: FloatArray = np.empty(bars)
        self.fills: Any = np.empty(_FIRST_ROOM, dtype=kernel.FILL)
        self.trades: Any = np.empty(_FIRST_ROOM, dtype=kernel.TRADE)

    def make_room(self) -> None:
        """See that the kernel can record at least one more step."""
        self.fills = _grown(self.fills, int(self.account[0].fills), kernel.ROOM)
        self.trades = _grown(self.trades, int(self.account[0].trades), kernel.ROOM)

    def snapshot(self) -> Snapshot:
        """What :meth:`restore` needs, taken at any yield of the engine."""
        account = self.account[0]
        arrays = {
            "account": _bytes_of(self.account, 1).copy(),
            "equity": self.equity_T[: self.done],
            "fills": _bytes_of(self.fills, int(account.fills)),
            "trades": _bytes_of(self.trades, int(account.trades)),
        }
        return Snapshot({"done": self.done, "bars": len(self.equity_T), "layout": _LAYOUT}, arrays)

    def restore(self, snapshot: Snapshot) -> None:
        """Become what ``snapshot`` was taken of; for a simulation of the same bars, signals and configuration.

        Raises
        ------
        InvalidInput
            If it is of another number of bars, or of another layout of the kernel's records; this state is then of no
            use any more.
        """
        values, arrays = snapshot.values, snapshot.arrays
        try:
            if values["layout"] != _LAYOUT:
                raise ValueError("the simulator's records have another layout now")
            if values["bars"] != len(self.equity_T):
                raise ValueError(f"it is of {values['bars']} bars, here are {len(self.equity_T)}")
            self.done = int(values["done"])
            self.equity_T[: self.done] = arrays["equity"]
            self.account.view(np.uint8)[:] = arrays["account"]
            self.fills = _filled(self.fills, arrays["fills"], int(self.account[0].fills))
            self.trades = _filled(self.trades, arrays["trades"], int(self.account[0].trades))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"The stored state of the simulation does not fit it: {error}.") from None


def _bytes_of(records: Any, used: int) -> Any:
    return records.view(np.uint8)[: used * records.dtype.itemsize]


def _grown(records: Any, used: int, room: int) -> Any:
    if used + room <= len(records):
        return records
    larger = np.empty(max(used + room, 2 * len(records)), dtype=records.dtype)
    _bytes_of(larger, used)[:] = _bytes_of(records, used)  # NumPy copies records field by field
    return larger


def _filled(records: Any, content: Any, used: int) -> Any:
    larger = _grown(records, 0, used + kernel.ROOM)
    _bytes_of(larger, used)[:] = content
    return larger
