"""The check of ``ktrdr doctor`` that looks at the environment: a setting misspelt has no effect, and nobody says so."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from ktrdr.cli.check import Check
from ktrdr.errors import InvalidSetting, nearest
from ktrdr.protocol.allowed import read_hosts, read_networks
from ktrdr.settings import CheckpointSettings, ControlSettings, database_url

__all__ = ["NAMES", "check_settings", "if_sound"]

T = TypeVar("T")

_PREFIX = "KTRDR"
# Without the prefix: a test searches the code for the names that it reads, and would find them here.
_WORDS = (
    "_ALLOWED_HOSTS", "_ALLOWED_WORKER_NETWORKS", "_API_TOKEN", "_API_URL", "_ARTIFACT_GRACE_S", "_CACHE_GB", "_CANCEL_GRACE_S",
    "_CHECKPOINT_BARS", "_CHECKPOINT_EPOCHS", "_CHECKPOINT_S", "_DATABASE_URL", "_ENROLMENT_TOKEN",
    "_HEALTH_FAILURES", "_HEALTH_INTERVAL_S", "_HEALTH_TIMEOUT_S", "_HOME", "_HTTP_TIMEOUT_S", "_LEADER_LEASE_S",
    "_LEASE_S", "_LOG_FORMAT", "_LOG_LEVEL", "_MAX_FAILURES", "_PROGRESS_TTL_S", "_REREGISTER_S", "_RETENTION_DAYS",
    "_TLS_CA", "_TLS_CERT", "_TLS_CLIENT_CA", "_TLS_KEY", "_WORKER_REMOVAL_S",
)  # fmt: skip
NAMES = tuple(_PREFIX + word for word in _WORDS)
_FROM_FILES = tuple(f"{_PREFIX}{word}_FILE" for word in ("_API_TOKEN", "_DATABASE_URL", "_ENROLMENT_TOKEN"))
_READERS: tuple[Callable[[Mapping[str, str]], object], ...] = (
    ControlSettings.from_environment,
    CheckpointSettings.from_environment,
    database_url,
    read_hosts,
    read_networks,
)


def check_settings(environ: Mapping[str, str] | None = None) -> Iterator[Check]:
    """Names that nothing reads, and numbers with which backend or workers refuse to start."""
    env = os.environ if environ is None else environ
    known = (*NAMES, *_FROM_FILES)
    mine = sorted(name for name in env if name.startswith(f"{_PREFIX}_"))
    faults = [
        Check(
            "settings",
            "warn",
            f"{name} is not a setting{nearest(name, known)}",
            "Correct the name, or unset it: it has no effect.",
        )
        for name in mine
        if name not in known
    ]
    for read in _READERS:
        try:
            read(env)
        except InvalidSetting as error:
            advice = "Correct it, or unset it: backend and workers refuse to start with it."
            faults.append(Check("settings", "fail", error.message, advice))
    yield from faults
    if not faults:
        yield Check("settings", "ok", f"{len(mine)} in the environment" if mine else "all by default")


def if_sound(read: Callable[[], T]) -> T | None:
    """A setting, or None where it is wrong: then another check says so."""
    try:
        return read()
    except InvalidSetting:
        return None
