"""How late the event loop runs what is due: the one number that tells whether the backend keeps up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from prometheus_client import Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

__all__ = ["LoopWatch"]

_EVERY_S = 0.05
_SLOT_S, _SLOTS = 5.0, 12
_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class LoopWatch:
    """Sets itself an alarm twenty times a second and notes how late it rings.

    While it is late, every request and every probe is late by as much. ``clock`` gives seconds and is the loop's own
    where it is None.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock
        self._lag = Histogram(
            "ktrdr_event_loop_lag_seconds",
            "How late the backend's event loop did what was due, twenty times a second.",
            buckets=_BUCKETS,
            registry=None,
        )
        self._worst: deque[tuple[float, float]] = deque(maxlen=_SLOTS)  # when the slot began, its largest lag

    async def run(self) -> None:
        """Watch for ever the loop that runs this."""
        clock = self._clock or asyncio.get_running_loop().time
        while True:
            due = clock() + _EVERY_S
            await asyncio.sleep(_EVERY_S)
            now = clock()
            self.note(now, max(0.0, now - due))

    def note(self, now: float, lag_s: float) -> None:
        """One measurement, made at ``now``."""
        self._lag.observe(lag_s)
        if self._worst and now - self._worst[-1][0] < _SLOT_S:
            began, worst = self._worst.pop()
            self._worst.append((began, max(worst, lag_s)))
        else:
            self._worst.append((now, lag_s))

    def collect(self) -> Iterator[Metric]:
        """The families of this moment; to be asked inside the loop."""
        yield from self._lag.collect()
        worst = GaugeMetricFamily(
            "ktrdr_event_loop_lag_max_seconds", "The largest such delay of the last minute."
        )
        worst.add_metric((), max((lag for _, lag in self._worst), default=0.0))
        yield worst
        tasks = GaugeMetricFamily("ktrdr_event_loop_tasks", "Tasks of the backend that have not ended.")
        tasks.add_metric((), len(asyncio.all_tasks()))
        yield tasks
