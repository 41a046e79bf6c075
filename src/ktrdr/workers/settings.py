"""A worker's settings, read once at its entry."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ktrdr.errors import InvalidSetting
from ktrdr.logs import LogSettings
from ktrdr.operations.model import WorkerType
from ktrdr.protocol.artifact_client import split_urls
from ktrdr.protocol.tls import TlsSettings
from ktrdr.settings import CheckpointSettings, ControlSettings, api_token, enrolment_token, home, read_number

__all__ = ["WorkerSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What a worker is told.

    ``host``, ``port``, ``endpoint_url`` and ``worker_id`` are None where they are to be detected or defaulted;
    port 0 asks the system for a free one. Durations are in seconds.
    """

    worker_type: WorkerType
    api_urls: tuple[str, ...]
    home: Path
    worker_id: str | None = None
    host: str | None = None
    port: int | None = None
    endpoint_url: str | None = None
    token: str | None = field(default=None, repr=False)
    enrolment_token: str | None = field(default=None, repr=False)
    tls: TlsSettings = field(default_factory=TlsSettings)
    control: ControlSettings = field(default_factory=ControlSettings)
    reregister_after_s: float = 30.0
    first_retry_s: float = 1.0
    longest_retry_s: float = 30.0
    cache_gb: float = 20.0
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    log: LogSettings = field(default_factory=LogSettings)

    @property
    def credential(self) -> str | None:
        """What this worker shows its backend."""
        return self.enrolment_token or self.token

    @property
    def tokens(self) -> tuple[str, ...]:
        """Credentials that open this worker's routes; empty where none is needed."""
        return tuple(token for token in (self.token, self.enrolment_token) if token)

    @classmethod
    def from_environment(
        cls,
        worker_type: WorkerType,
        environ: Mapping[str, str] | None = None,
        *,
        api_url: str | None = None,
        host: str | None = None,
        port: int | None = None,
        worker_id: str | None = None,
    ) -> WorkerSettings:
        """Read the environment; the named arguments (flags) win over it.

        Raises
        ------
        InvalidSetting
            If the backend's URL is missing, or a value cannot be used.
        """
        env = os.environ if environ is None else environ
        control = ControlSettings.from_environment(env)
        return cls(
            worker_type=worker_type,
            api_urls=_api_urls(api_url or env.get("KTRDR_API_URL"), worker_type),
            home=home(env),
            worker_id=worker_id or env.get("WORKER_ID") or None,
            host=host or env.get("WORKER_IP") or None,
            port=_port(env) if port is None else port,
            endpoint_url=_endpoint(env.get("WORKER_ENDPOINT_URL")),
            token=api_token(env),
            enrolment_token=enrolment_token(env),
            tls=TlsSettings.from_environment(env),
            control=control,
            reregister_after_s=read_number(
                "KTRDR_REREGISTER_S", 3 * control.health_interval_s, minimum=0.05, environ=env
            ),
            cache_gb=read_number("KTRDR_CACHE_GB", 20.0, environ=env),
            checkpoints=CheckpointSettings.from_environment(env),
            log=LogSettings.from_environment(env),
        )


def _api_urls(text: str | None, worker_type: WorkerType) -> tuple[str, ...]:
    if not text or not text.strip():
        raise InvalidSetting(
            "KTRDR_API_URL is not set: a worker must know its backend. Example: "
            f"KTRDR_API_URL=http://127.0.0.1:8000 ktrdr worker start {worker_type.value}"
        )
    return split_urls(text)


def _port(env: Mapping[str, str]) -> int | None:
    text = env.get("WORKER_PORT", "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) > 65535:
        raise InvalidSetting(f"WORKER_PORT='{text}' is not a port: 0 (any free one) to 65535.")
    return int(text)


def _endpoint(text: str | None) -> str | None:
    if not text or not text.strip():
        return None
    parts = urlsplit(text.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise InvalidSetting(
            f"WORKER_ENDPOINT_URL='{text}' is not a URL at which the backend can reach this worker. "
            "Example: http://192.168.1.20:5003"
        )
    return text.strip().rstrip("/")
