"""For every test: how examples are searched, and one PostgreSQL server for those that need it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from support.postgres import Postgres, binaries, running_postgres

# A red build must be about the change that it builds; new examples are found on developers' machines.
# How long an example takes says something about the machine only.
TIMELESS = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", derandomize=True, print_blob=True, **TIMELESS)
settings.register_profile("search", print_blob=True, **TIMELESS)
settings.load_profile("ci" if os.environ.get("CI") else "search")

# Set in many containers: with it an output that cannot be written fails where it is printed, and not at the exit of the
# process, as it does for most users.
os.environ.pop("PYTHONUNBUFFERED", None)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell lets what it starts in the background ignore Ctrl-C; the tests of Ctrl-C, and all that they start, need it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A throw-away PostgreSQL server; each test makes databases of its own in it."""
    bin_folder = binaries()
    if bin_folder is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with running_postgres(bin_folder) as server:
        yield server
