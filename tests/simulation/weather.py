"""Faults of machines, links, storage and clocks, in the order that one seed gives them; then fine weather."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from simulation.backends import Backends
from simulation.network import Network
from simulation.plan import Weather
from simulation.trace import Trace
from simulation.worker import SimulatedWorker

__all__ = ["Storm"]

_WORKERS_PER_SHARE = 8  # a fleet twice as large has twice as many faults
_PARTITION_S = ((3.0, 40.0), (55.0, 80.0), (80.0, 200.0))  # short, about as long as a lease, longer
_WRONG_S, _WORKER_WRONG_S = 200.0, 3_600.0  # at most, for a backend's clock and a worker's
_Kind = tuple[str, float, Callable[[Random], Awaitable[None]]]


class Storm:
    """Runs every kind of fault in a loop of its own until :meth:`heal`."""

    def __init__(
        self,
        seed: str,
        weather: Weather,
        network: Network,
        machine: Backends,
        workers: Sequence[SimulatedWorker],
        trace: Trace,
    ) -> None:
        self._seed, self._weather, self._network = seed, weather, network
        self._machine, self._workers, self._trace = machine, workers, trace
        self._shares = max(len(workers) // _WORKERS_PER_SHARE, 1)
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        w = self._weather
        of_workers: tuple[_Kind, ...] = (
            ("partition", w.partition_every_s, self._partition),
            ("crash", w.crash_every_s, self._crash),
            ("pause", w.pause_every_s, self._pause),
            ("worker clock", w.clock_jump_every_s, self._worker_clock),
        )
        of_the_backend: tuple[_Kind, ...] = (
            ("backend", w.backend_crash_every_s, self._backend),
            ("armed", w.armed_crash_every_s, self._arm),
            ("store", w.store_trouble_every_s, self._store),
            ("clock", w.clock_jump_every_s, self._clock),
        )
        if self._machine.several:
            of_the_backend += (
                ("freeze", w.backend_freeze_every_s, self._machine.freeze_one),
                ("cut", w.ledger_cut_every_s, self._machine.cut_one),
            )
        loops = [(f"{kind[0]}/{n}", *kind[1:]) for kind in of_workers for n in range(self._shares)]
        for name, every_s, fault in (*loops, *of_the_backend):
            self._tasks.append(
                asyncio.ensure_future(self._loop(Random(f"{self._seed}/{name}"), every_s, fault))
            )

    async def _loop(self, random: Random, every_s: float, fault: Callable[[Random], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(random.uniform(0.2, 1.8) * every_s)
            await fault(random)

    def heal(self) -> None:
        """The sun comes out: every machine runs, every link is whole, clocks and storage behave."""
        for task in self._tasks:
            task.cancel()
        self._network.weather = self._machine.weather = Weather.calm()
        self._network.cut.clear()
        trouble = self._machine.trouble
        trouble.busy_until = trouble.slow_until = 0.0
        trouble.armed = None
        for worker in self._workers:
            worker.rough = False
            worker.thaw()
            if worker.process is None:
                worker.start()
        self._machine.heal()
        self._trace.tell("everything heals")

    async def _partition(self, random: Random) -> None:
        worker = random.choice(self._workers)
        outwards, one_way = random.random() < 0.5, random.random() < 0.7
        links = []
        for url in self._machine.way(random):
            there, back = (url, worker.url), (worker.url, url)
            links += [there if outwards else back] if one_way else [there, back]
        for one in links:
            self._network.cut[one] += 1
        await asyncio.sleep(random.uniform(*random.choice(_PARTITION_S)))
        for one in links:
            self._network.cut[one] -= 1

    async def _crash(self, random: Random) -> None:
        worker = random.choice(self._workers)
        if worker.process is None:
            return
        worker.crash()
        long = random.random() < 0.1
        await asyncio.sleep(random.uniform(200.0, 400.0) if long else random.uniform(0.1, 40.0))
        if worker.process is None:
            worker.start()

    async def _pause(self, random: Random) -> None:
        worker = random.choice(self._workers)
        if worker.process is None or worker.paused is not None:
            return
        past = random.random() < 0.6
        seconds = random.uniform(60.0, 150.0) if past else random.uniform(1.0, 40.0)
        if past:
            self._trace.fault("worker pause past lease", f"{worker.instance_id} for {seconds:.3f} s")
        worker.freeze()
        await asyncio.sleep(seconds)
        worker.thaw()

    async def _backend(self, random: Random) -> None:
        self._machine.some(random).crash("backend crash")

    async def _arm(self, random: Random) -> None:
        where = random.choice(("before", "after", "answer"))
        if where == "answer":
            self._machine.arm_answer()
        else:
            self._machine.trouble.armed = where

    async def _store(self, random: Random) -> None:
        trouble, now = self._machine.trouble, self._trace.now()
        if random.random() < 0.5:
            trouble.busy_until = now + random.uniform(1.0, 30.0)
        else:
            trouble.slow_until = now + random.uniform(5.0, 30.0)

    async def _worker_clock(self, random: Random) -> None:
        worker, skew_s = random.choice(self._workers), random.uniform(-_WORKER_WRONG_S, _WORKER_WRONG_S)
        self._trace.fault("worker clock jump", f"{worker.worker_id} is {skew_s:.3f} s off")
        worker.set_clock(skew_s)

    async def _clock(self, random: Random) -> None:
        seconds = random.uniform(1.0, 90.0) * random.choice((-1.0, 1.0))
        clock = self._machine.some(random).clock
        if abs(clock.skew_s + seconds) > _WRONG_S:
            seconds = -seconds
        self._trace.fault(f"clock jump {'back' if seconds < 0 else 'forward'}", f"{abs(seconds):.3f} s")
        clock.jump(seconds)
