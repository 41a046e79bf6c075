"""What the backend needs to know at its start; read once and handed down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from ktrdr.errors import InvalidSetting
from ktrdr.protocol.allowed import LOOPBACK, PRIVATE, Network, read_hosts, read_networks
from ktrdr.protocol.hosts import is_loopback
from ktrdr.protocol.tls import TlsSettings
from ktrdr.settings import (
    RANDOM_ADVICE,
    ControlSettings,
    api_token,
    database_url,
    enrolment_token,
    home,
    token_weakness,
)

__all__ = ["BackendConfig"]


def _refuse_weak(host: str, **tokens: str | None) -> None:
    for name, token in tokens.items():
        weakness = None if token is None else token_weakness(token)
        if weakness is not None:
            raise InvalidSetting(
                f"{name} {weakness} where everybody who reaches {host} may guess. {RANDOM_ADVICE}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendConfig:
    """A backend's settings.

    ``database`` is a URL (SQLite or PostgreSQL) or None for the SQLite file in ``home``. ``networks``: where
    workers' endpoints may lie. ``loopback_only``: the server is bound to loopback. ``hosts``: the names under which it is
    asked besides the local ones; none on loopback means the local ones alone, off loopback any.
    """

    home: Path
    database: str | None = field(default=None, repr=False)  # may hold a password
    control: ControlSettings = field(default_factory=ControlSettings)
    api_token: str | None = None
    worker_token: str | None = None
    tls: TlsSettings = field(default_factory=TlsSettings)
    loopback_only: bool = True
    networks: tuple[Network, ...] = LOOPBACK
    hosts: tuple[str, ...] = ()
    strategy_roots: tuple[Path, ...] = ()
    max_artifact_bytes: int = 4 << 30
    version: str = field(default_factory=lambda: version("ktrdr"))

    @classmethod
    def from_environment(
        cls,
        host: str = "127.0.0.1",
        *,
        environ: Mapping[str, str] | None = None,
        tls: TlsSettings | None = None,
    ) -> BackendConfig:
        """Read the environment for a server bound to ``host``.

        Raises
        ------
        InvalidSetting
            If a value cannot be used, or ``host`` is not loopback and a token is missing or could be guessed.
        """
        env = os.environ if environ is None else environ
        token = api_token(env)
        local = is_loopback(host)
        if not local and token is None:
            raise InvalidSetting(
                f"Binding {host} would open the backend to the network without a password. "
                f"Set KTRDR_API_TOKEN (or KTRDR_API_TOKEN_FILE), or bind 127.0.0.1. {RANDOM_ADVICE}"
            )
        worker_token = enrolment_token(env)
        if not local:
            _refuse_weak(host, KTRDR_API_TOKEN=token, KTRDR_ENROLMENT_TOKEN=worker_token)
        networks = read_networks(env)
        root = home(env)
        return cls(
            home=root,
            database=database_url(env),
            control=ControlSettings.from_environment(env),
            api_token=token,
            worker_token=worker_token,
            tls=tls or TlsSettings.from_environment(env),
            loopback_only=local,
            networks=networks or (LOOPBACK if local else PRIVATE),
            hosts=read_hosts(env),
            strategy_roots=(root / "strategies", Path.cwd() / "strategies"),
        )
