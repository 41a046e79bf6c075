"""All backends of one ledger: which of them a fault hits, and what they share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, cast

from ktrdr.operations.model import OperationType
from ktrdr.settings import ControlSettings
from simulation.disk import Disk
from simulation.election import Seat, SimulatedElection
from simulation.laws import Laws
from simulation.laws_checkpoints import CheckpointLaws
from simulation.laws_upkeep import UpkeepLaws
from simulation.ledger import Trouble
from simulation.plan import Weather
from simulation.shelf import Shelf
from simulation.trace import Trace
from simulation.virtual_time import SimulatedClock, VirtualLoop

if TYPE_CHECKING:
    from ktrdr.backend.wiring import Backend
    from simulation.backend import BackendMachine

__all__ = ["Backends", "Common", "backends_of"]

_FREEZES_S = (
    (1.0, 8.0),
    (11.0, 40.0),
    (61.0, 120.0),
)  # shorter than the term's lease, longer, than a worker's
_CUTS_S = ((1.0, 9.0), (11.0, 60.0))


def backends_of(seed: int) -> int:
    """How many backends a seed has, where nobody says it."""
    if seed % 7 == 0:
        return 3
    return 2 if seed % 4 == 0 else 1


@dataclass(slots=True)
class Common:
    """What all backends have in common: the ledger's disk and its troubles, and what they were heard to promise."""

    disk: Disk
    shelf: Shelf
    trouble: Trouble = field(default_factory=Trouble)
    out_of_use: set[str] = field(default_factory=set)  # drained, as the operator was told
    paused_types: set[OperationType] = field(default_factory=set)  # as a backend acknowledged
    election: SimulatedElection | None = None
    lifts: int = 0  # of pauses
    disturbed_at: float = 0.0  # when a backend that stood still or was cut off went on

    @classmethod
    def of(
        cls, count: int, control: ControlSettings, trace: Trace, laws: Laws, random: Callable[[str], Random]
    ) -> Common:
        """For so many backends."""
        disk = Disk(laws, control.max_failures)
        shelf = Shelf(trace, random("shelf"))
        laws.checkpoints = CheckpointLaws(laws, shelf, trace.situations)
        laws.upkeep = UpkeepLaws(laws, trace.situations)
        shelf.on_collect = laws.upkeep.collected
        if count == 1:
            return cls(disk, shelf)
        election = SimulatedElection(trace, laws, random("election"), control.leader_lease_s)
        return cls(disk, shelf, election=election)

    def seat(self, name: str, trace: Trace, laws: Laws) -> Seat | None:
        """One backend's place in the election; None where there is one backend only."""
        return None if self.election is None else Seat(name, self.election, trace, laws)


class Backends:
    """Satisfies what the storm, the operators and the world ask of the backend, however many there are."""

    def __init__(self, machines: list[BackendMachine], common: Common, trace: Trace) -> None:
        self.machines, self.common, self._trace = machines, common, trace
        self.disk, self.trouble, self.out_of_use = common.disk, common.trouble, common.out_of_use
        self.in_hand: set[str] = set()  # workers that an operator is draining, or lets work again

    @property
    def several(self) -> bool:
        return len(self.machines) > 1

    @property
    def urls(self) -> tuple[str, ...]:
        """Where they serve."""
        return tuple(machine.url for machine in self.machines)

    @property
    def leader(self) -> BackendMachine:
        """Whose term is the newest; the first one before there is any."""
        return next((m for m in self.machines if m.seat is not None and m.seat.leads), self.machines[0])

    def some(self, random: Random) -> BackendMachine:
        """One of them, more often than not the leader; no dice are thrown for one."""
        if not self.several:
            return self.machines[0]
        return self.leader if random.random() < 0.6 else random.choice(self.machines)

    def way(self, random: Random) -> tuple[str, ...]:
        """The backends that a worker is cut off from: all of them, or one."""
        return self.urls if not self.several or random.random() < 0.5 else (random.choice(self.urls),)

    @property
    def backend(self) -> Backend:
        """That of the leader."""
        return self.leader.backend

    @property
    def clock(self) -> SimulatedClock:
        """That of the leader."""
        return self.leader.clock

    @property
    def ready(self) -> bool:
        """Whether one leads, knows it, and can do its work."""
        leader = self.leader
        if not self.several or not leader.ready:
            return leader.ready
        seat, loop = leader.seat, cast("VirtualLoop", asyncio.get_running_loop())
        held_up = seat is None or seat.is_cut or leader.process in loop.frozen
        return not held_up and leader.backend.leads and seat is not None and seat.leads

    @property
    def started_at(self) -> float:
        """Since when the one that leads has had its way."""
        began, election = self.leader.started_at, self.common.election
        return began if election is None else max(began, election.granted_at, self.common.disturbed_at)

    @property
    def paused_types(self) -> set[OperationType]:
        return self.common.paused_types

    @property
    def weather(self) -> Weather:
        return self.machines[0].weather

    @weather.setter
    def weather(self, weather: Weather) -> None:
        for machine in self.machines:
            machine.weather = weather

    def start(self) -> None:
        """All that do not run."""
        for machine in self.machines:
            machine.start()

    def crash(self, fault: str) -> None:
        """The one that leads."""
        self.leader.crash(fault)

    def arm_answer(self) -> None:
        """The next start request that a worker answers kills the backend that sent it."""
        for machine in self.machines:
            machine.armed_answer = True

    def heal(self) -> None:
        """All run, and reach the ledger."""
        loop = cast("VirtualLoop", asyncio.get_running_loop())
        for machine in self.machines:
            machine.armed_answer = False
            if machine.process is not None:
                machine.process.thaw(loop)
            if machine.seat is not None:
                machine.seat.cut_until = 0.0
        self.start()

    async def freeze_one(self, random: Random) -> None:
        """One stands still, and goes on later as if nothing had been."""
        machine, seconds = self.some(random), random.uniform(*random.choice(_FREEZES_S))
        process, loop = machine.process, cast("VirtualLoop", asyncio.get_running_loop())
        if process is None:
            return
        self._trace.fault("backend freeze", f"{machine.name} for {seconds:.3f} s")
        process.freeze(loop)
        await asyncio.sleep(seconds)
        process.thaw(loop)
        self.common.disturbed_at = self._trace.now()

    async def cut_one(self, random: Random) -> None:
        """One does not reach the ledger."""
        machine, seconds = self.some(random), random.uniform(*random.choice(_CUTS_S))
        if machine.seat is not None:
            machine.seat.cut_until = self._trace.now() + seconds
            await asyncio.sleep(seconds)
            self.common.disturbed_at = self._trace.now()

    def audit(self, *, strict: bool = False) -> None:
        """Each of them, as far as it leads."""
        for machine in self.machines:
            machine.audit(strict=strict)

    def audit_empty(self) -> None:
        """Each of them."""
        for machine in self.machines:
            machine.audit_empty()
