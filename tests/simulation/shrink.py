"""A smaller run that breaks the same law: fewer operations, workers and kinds of faults, and less time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

from simulation.backends import backends_of
from simulation.plan import Size, Weather
from simulation.world import Report

__all__ = ["Plan", "shrink"]

_FAULTS = tuple(field.name for field in fields(Weather))
_FEWEST_WORKERS = 2
_LARGEST = 50_000  # operations: what is larger takes too long to be tried


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a run depends on. ``without`` names kinds of faults that do not happen."""

    seed: int
    size: Size
    without: tuple[str, ...] = ()

    @property
    def weather(self) -> Weather:
        """The seed's climate, less what it is without."""
        calm = Weather.calm()
        return replace(Weather.of(self.seed), **{name: getattr(calm, name) for name in self.without})

    def __str__(self) -> str:
        size = self.size
        words = f"--seeds {self.seed} --workers {size.workers} --operations {size.operations} --chaos-s {size.chaos_s:g}"
        words += "" if size.longest_s == Size().longest_s else f" --longest-s {size.longest_s:g}"
        words += "" if size.backends is None else f" --backends {size.backends}"
        return f"{words} --without {','.join(self.without)}" if self.without else words


def shrink(plan: Plan, report: Report, run: Callable[[Plan], Report], budget_s: float) -> tuple[Plan, Report]:
    """The smallest plan found within ``budget_s`` (and one run) that breaks the law which ``plan`` broke.

    Each step tries every way to make the plan smaller, the boldest first, and goes on from the first that breaks the
    law, until none does.
    """
    assert report.violation is not None
    law, until = report.violation.law, time.monotonic() + budget_s
    best, tried, found = (plan, report), {plan}, True
    while found:
        found = False
        for smaller in _smaller(best[0]):
            if time.monotonic() > until:
                return best
            if smaller in tried or smaller.size.operations > _LARGEST:
                continue
            tried.add(smaller)
            seen = run(smaller)
            if seen.violation is not None and seen.violation.law == law:
                best, found = (smaller, seen), True
                break
    return best


def _smaller(plan: Plan) -> Iterator[Plan]:
    size = plan.size
    for share in (32, 8, 2):
        if size.operations >= share:
            yield replace(plan, size=replace(size, operations=size.operations // share))
    for share in (8, 2):
        if size.workers // share >= _FEWEST_WORKERS:
            yield replace(plan, size=replace(size, workers=size.workers // share))
    if (size.backends or backends_of(plan.seed)) > 1:
        yield replace(plan, size=replace(size, backends=1))
    present = [name for name in _FAULTS if name not in plan.without]
    for half in (present[: len(present) // 2], present[len(present) // 2 :]):
        if len(half) > 1:
            yield replace(plan, without=(*plan.without, *half))
    for name in present:
        yield replace(plan, without=(*plan.without, name))
    yield replace(plan, size=replace(size, chaos_s=size.chaos_s / 2))
