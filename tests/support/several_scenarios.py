"""What happens to several backends of one ledger; each scenario ends with a company that is whole again.

Every one takes a :class:`support.several.Several` with its work submitted under ``quick`` and ``long``, of which the
latter runs until there is a file ``trace.enough``, and a source of random numbers, and fails if something acknowledged
is lost or done twice. ``Figures`` says how long things took.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from ktrdr.errors import NoAnswer
from support.bounds import LEADERS, kept
from support.chaos import ended, runs
from support.processes import advancing, wait_for
from support.several import Several, Stream

__all__ = ["SCENARIOS", "Figures", "killed_leader", "restarted_one_by_one", "stopped_leader"]

GONE, FROZEN = (
    "the leader of several backends killed, or restarted",
    "the leader of several backends frozen, and back",
)
Figures = dict[str, float]
BOUND_S = 30.0  # of a take-over; on an idle machine it is seconds, see the figures


def _enough(trace: Path) -> Path:
    """Where this is, the long job comes to its end."""
    return trace.with_name(f"{trace.name}.enough")


def settled(company: Several, trace: Path, acknowledged: list[str]) -> None:
    """Every acknowledged operation has one result, of one attempt, by one run; workers were never touched."""
    _enough(trace).touch()
    assert len(acknowledged) > 3, "hardly anything was acknowledged; the scenario proves nothing"
    with company.api() as api:
        views = ended(api, acknowledged)
    _enough(trace).unlink()
    assert Counter(view["status"] for view in views.values()) == {"completed": len(acknowledged)}
    for view in views.values():
        delivered = [line for line in view["story"] if " delivered " in line]
        assert (len(delivered), view["failures"]) == (1, 0), view["story"]
    began = Counter(run.rpartition(".")[0] for run in runs(trace).elements())
    assert {began[name] for name in acknowledged} == {1}, began


def killed_leader(company: Several, trace: Path, random: Random) -> Figures:
    """``kill -9`` of the leader while operations are submitted through all backends and one runs."""
    leader = company.leader()
    with company.api() as api:
        long = company.submit(api, "long")
        advancing(api, long)
    stream = Stream(company, "quick")
    time.sleep(random.uniform(0.2, 1.5))
    began = time.monotonic()
    company.backends[leader].kill()
    company.leader(but=leader, timeout_s=BOUND_S)
    took = kept(GONE, time.monotonic() - began)
    _enough(trace).touch()
    time.sleep(random.uniform(0.2, 1.0))
    company.backend(leader)
    settled(company, trace, [long, *stream.stop()])
    return {"take-over after kill -9 of the leader": took}


def stopped_leader(company: Several, trace: Path, random: Random) -> Figures:
    """SIGSTOP of the leader for longer than its lease, under load; then it goes on and finds itself following."""
    leader = company.leader()
    with company.api() as api:
        long = company.submit(api, "long")
        advancing(api, long)
    stream = Stream(company, "quick")
    time.sleep(random.uniform(0.2, 1.0))
    before = company.says(leader)["epoch"]
    began = time.monotonic()
    company.backends[leader].signal(signal.SIGSTOP)
    try:
        heir = company.leader(but=leader, timeout_s=BOUND_S)
        took = kept(FROZEN, time.monotonic() - began, LEADERS)
        _enough(trace).touch()
        time.sleep(random.uniform(0.2, 1.0))
    finally:
        company.backends[leader].signal(signal.SIGCONT)
    began = time.monotonic()
    wait_for(
        lambda: company.health(leader).get("role") == "follower", "the one that stood still follows", BOUND_S
    )
    stepped = time.monotonic() - began
    assert company.leader() == heir
    epochs = wait_for(lambda: _agreed(company), "all know the same term")
    assert epochs > before
    settled(company, trace, [long, *stream.stop()])
    return {"take-over from a leader that stands still": took, "until it follows, once it goes on": stepped}


def _agreed(company: Several) -> int:
    epochs = {company.says(name)["epoch"] for name in company.backends}
    return epochs.pop() if len(epochs) == 1 else 0


def restarted_one_by_one(company: Several, trace: Path, random: Random) -> Figures:
    """Every backend is stopped cleanly and started again, one after the other, the leader among them, under load."""
    with company.api() as api:
        long = company.submit(api, "long")
        advancing(api, long)
    stream = Stream(company, "quick")
    longest = 0.0
    for name in random.sample(sorted(company.backends), len(company.backends)):
        led = company.leader() == name
        began = time.monotonic()
        assert company.backends[name].stop() == 0, company.backends[name].text()
        if led:
            company.leader(but=name, timeout_s=BOUND_S)
            longest = kept(GONE, time.monotonic() - began)
        company.backend(name)
        _enough(trace).touch()
    settled(company, trace, [long, *stream.stop()])
    lost = [error for error in stream.refused if not isinstance(error, NoAnswer)]
    assert not lost, "a client that knows all addresses is not turned away"
    return {"take-over at a restart of the leader, its stop included": longest}


SCENARIOS: dict[str, Callable[[Several, Path, Random], Figures]] = {
    "killed leader": killed_leader,
    "stopped leader": stopped_leader,
    "restarted one by one": restarted_one_by_one,
}
"""By name, for ``make test-chaos``."""
