"""The fleet at a glance, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ktrdr.cli.client import Json
from ktrdr.cli.output import day_and_time

__all__ = ["overview_lines", "told_paused"]

_STATUSES = ("pending", "assigned", "running", "cancelling", "completed", "failed", "cancelled")


def told_paused(paused: Sequence[Json]) -> str:
    """Whether the queue is open, in one sentence."""
    if not paused:
        return "The queue is open."
    parts = (f"{p['operation_type']} since {day_and_time(p['since'])} UTC" for p in paused)
    return f"Paused: {', '.join(parts)}. 'ktrdr operations unpause' lets them go."


def overview_lines(queue: Json, workers: Json) -> Iterator[str]:
    """What ``ktrdr status`` prints, from the answers of the backend."""
    yield f"queue       {told_paused(queue['paused'])}"
    for kind, counts in sorted(queue["operations"].items()):
        yield f"operations  {kind}: {_counted({s: counts[s] for s in _STATUSES if counts.get(s)})}"
    unseen = sum(not worker.get("seen", True) for worker in workers["workers"])
    not_seen = f" ({unseen:,} not seen yet)" if unseen else ""
    yield f"workers     {_counted(dict(sorted(workers['by_status'].items())))}{not_seen}"
    for worker in workers["workers"]:
        if worker["status"] in ("draining", "temporarily_unavailable"):
            held = worker["current_operation"]
            yield f"            {worker['id']} is {worker['status']}" + (f", holds {held}" if held else "")


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"
