"""Settings: read once, where a process enters, and handed down as small frozen values.

Order: flag > environment > default. Every secret may also come from a file named by ``NAME_FILE``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ktrdr.errors import InvalidSetting

__all__ = [
    "DEFAULT_API_URL",
    "RANDOM_ADVICE",
    "CheckpointSettings",
    "ControlSettings",
    "api_token",
    "api_url",
    "database_url",
    "enrolment_token",
    "home",
    "read_choice",
    "read_count",
    "read_number",
    "token_weakness",
]

DEFAULT_API_URL = "http://127.0.0.1:8000"
RANDOM_ADVICE = "Make one: openssl rand -hex 32"
_TOKEN_LENGTH, _TOKEN_VARIETY = 16, 8
_LARGEST = 1e9  # as seconds, 31 years: no clock, calendar or C integer has trouble with it
_LONGEST_RETENTION_DAYS = 100_000.0  # the calendar begins in the year 1

Environment = Mapping[str, str]


def read_number(
    name: str,
    default: float,
    *,
    minimum: float = 0.0,
    maximum: float = _LARGEST,
    environ: Environment | None = None,
) -> float:
    """A number from the environment.

    Raises
    ------
    InvalidSetting
        If the text is not a number from ``minimum`` to ``maximum``.
    """
    text = (os.environ if environ is None else environ).get(name)
    if text is None or not text.strip():
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not minimum <= value <= maximum:
        raise InvalidSetting(
            f"{name}='{text}' is not a number of at least {minimum:g} and at most {maximum:.0f}. "
            f"Default: {default:g}."
        )
    return value


def read_count(name: str, default: int, *, minimum: int = 0, environ: Environment | None = None) -> int:
    """A whole number from the environment.

    Raises
    ------
    InvalidSetting
        If the text is not a number, too small or too large, or has a fraction: half an epoch would be none at all.
    """
    value = read_number(name, default, minimum=minimum, environ=environ)
    if not float(value).is_integer():
        raise InvalidSetting(f"{name}='{value:g}' is not a whole number. Default: {default}.")
    return int(value)


def read_choice(
    name: str, default: str, accepted: tuple[str, ...], *, environ: Environment | None = None
) -> str:
    """One of a few words from the environment, case-insensitive."""
    text = (os.environ if environ is None else environ).get(name) or default
    for word in accepted:
        if text.lower() == word.lower():
            return word
    raise InvalidSetting(f"{name}='{text}' is not accepted. Choose one of: {', '.join(accepted)}.")


def home(environ: Environment | None = None) -> Path:
    """``KTRDR_HOME``, or the platform's data directory: ledger, market data, artifacts, caches, logs."""
    text = (os.environ if environ is None else environ).get("KTRDR_HOME")
    if text:
        return Path(text).expanduser().absolute()
    from platformdirs import user_data_path  # lazy: workers and the CLI rarely need it

    return user_data_path("ktrdr", appauthor=False)


def api_url(environ: Environment | None = None) -> str:
    """``KTRDR_API_URL``, or the local default; for the CLI (a worker has no default)."""
    text = (os.environ if environ is None else environ).get("KTRDR_API_URL") or DEFAULT_API_URL
    return text.rstrip("/")


def api_token(environ: Environment | None = None) -> str | None:
    """``KTRDR_API_TOKEN`` or the content of the file ``KTRDR_API_TOKEN_FILE``; None where neither is set."""
    return _token("KTRDR_API_TOKEN", environ)


def token_weakness(token: str) -> str | None:
    """Why a token that somebody chose could be guessed over a network, without a word of it; None if it is long enough.

    At least 16 characters, of at least 8 different ones: that refuses what people type as a placeholder. It cannot tell
    a sentence from random bytes; only random bytes are safe.
    """
    if len(token) < _TOKEN_LENGTH:
        return f"has {len(token)} characters; at least {_TOKEN_LENGTH} are needed"
    if len(set(token)) < _TOKEN_VARIETY:
        return f"is made of {len(set(token))} different characters; at least {_TOKEN_VARIETY} are needed"
    return None


def enrolment_token(environ: Environment | None = None) -> str | None:
    """What workers and the backend show each other: ``KTRDR_ENROLMENT_TOKEN``, or the API token without it."""
    return _token("KTRDR_ENROLMENT_TOKEN", environ) or api_token(environ)


def database_url(environ: Environment | None = None) -> str | None:
    """``KTRDR_DATABASE_URL`` or the content of the file ``KTRDR_DATABASE_URL_FILE``; None: the file in the home."""
    return _secret("KTRDR_DATABASE_URL", environ)


def _token(name: str, environ: Environment | None) -> str | None:
    """A secret that travels in a header. Whatever is wrong with it, the message has no word of it."""
    token = _secret(name, environ)
    fault = None if token is None else _unfit(token)
    if fault is not None:
        raise InvalidSetting(
            f"{name} has {fault}; a token is printable ASCII characters without spaces. {RANDOM_ADVICE}"
        )
    return token


def _unfit(token: str) -> str | None:
    """What no header can carry, and HTTP libraries would print with the whole token."""
    if not token.isascii():
        return "characters outside ASCII"
    if any(character in "\r\n" for character in token):
        return "a line break"
    if " " in token:
        return "a space"
    return None if token.isprintable() else "a control character"


def _secret(name: str, environ: Environment | None) -> str | None:
    """A file that holds nothing is a fault: who names one does not mean to go without a secret."""
    env = os.environ if environ is None else environ
    path = env.get(f"{name}_FILE")
    if not path:
        return env.get(name) or None
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InvalidSetting(f"{name}_FILE='{path}' cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InvalidSetting(
            f"{name}_FILE='{path}' is not text. Name a file with nothing but the value in it."
        ) from None
    if not text:
        raise InvalidSetting(f"{name}_FILE='{path}' is empty. Write the value into it, or do not set it.")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSettings:
    """How often a worker's job is checkpointed; whichever comes first. 0: not by this measure."""

    every_s: float = 30.0
    every_epochs: int = 0
    every_bars: int = 0

    @classmethod
    def from_environment(cls, environ: Environment | None = None) -> CheckpointSettings:
        """Read ``KTRDR_CHECKPOINT_S`` and its kin.

        Raises
        ------
        InvalidSetting
            If one of them is not a number of at least 0.
        """
        return cls(
            every_s=read_number("KTRDR_CHECKPOINT_S", 30.0, environ=environ),
            every_epochs=read_count("KTRDR_CHECKPOINT_EPOCHS", 0, environ=environ),
            every_bars=read_count("KTRDR_CHECKPOINT_BARS", 0, environ=environ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """The control plane's numbers; fractions are allowed, so that tests run fast on the same code.

    Durations are in seconds, but for ``retention_days``.
    """

    health_interval_s: float = 10.0
    health_timeout_s: float = 5.0
    health_failures: int = 3
    worker_removal_s: float = 300.0
    lease_s: float = 60.0
    max_failures: int = 3
    progress_ttl_s: float = 1.0
    cancel_grace_s: float = 10.0
    http_timeout_s: float = 10.0
    retention_days: float = 90.0
    artifact_grace_s: float = 86_400.0
    leader_lease_s: float = 10.0

    @classmethod
    def from_environment(cls, environ: Environment | None = None) -> ControlSettings:
        """Read ``KTRDR_HEALTH_INTERVAL_S`` and its kin.

        Raises
        ------
        InvalidSetting
            If one of them is not a number, too small or too large.
        """

        def number(name: str, default: float, minimum: float = 0.001, maximum: float = _LARGEST) -> float:
            return read_number(name, default, minimum=minimum, maximum=maximum, environ=environ)

        return cls(
            health_interval_s=number("KTRDR_HEALTH_INTERVAL_S", 10.0),
            health_timeout_s=number("KTRDR_HEALTH_TIMEOUT_S", 5.0),
            health_failures=read_count("KTRDR_HEALTH_FAILURES", 3, minimum=1, environ=environ),
            worker_removal_s=number("KTRDR_WORKER_REMOVAL_S", 300.0),
            lease_s=number("KTRDR_LEASE_S", 60.0),
            max_failures=read_count("KTRDR_MAX_FAILURES", 3, minimum=1, environ=environ),
            progress_ttl_s=number("KTRDR_PROGRESS_TTL_S", 1.0),
            cancel_grace_s=number("KTRDR_CANCEL_GRACE_S", 10.0),
            http_timeout_s=number("KTRDR_HTTP_TIMEOUT_S", 10.0),
            retention_days=number("KTRDR_RETENTION_DAYS", 90.0, maximum=_LONGEST_RETENTION_DAYS),
            artifact_grace_s=number("KTRDR_ARTIFACT_GRACE_S", 86_400.0),
            leader_lease_s=number("KTRDR_LEADER_LEASE_S", 10.0, 1.0),
        )
