"""TLS files that are renewed while a process runs: the contexts follow them without a restart."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

from ktrdr.errors import InvalidSetting
from ktrdr.protocol.tls import TlsSettings

__all__ = ["ClientTls", "FollowedContext", "connecting", "serving"]

_log = logging.getLogger(__name__)

ClientTls = Callable[[], ssl.SSLContext | None]
"""What a new connection is made with; None means what the system trusts."""


class FollowedContext:
    """A context made of files, and made again when one of them has changed.

    The files are looked at whenever the context is asked for, which is once per connection or request; that costs a few
    microseconds. As long as what lies there cannot be used (half written, a key that is not the certificate's,
    expired), the context stays as it was, and the log says why: once for each reason until a good one is found.
    Connections that are open already go on as they are.

    Parameters
    ----------
    make
        Makes a context of the files as they are; raises InvalidSetting if that cannot be done.
    files
        What to look at.

    Raises
    ------
    InvalidSetting
        If the files cannot be used at the start.
    """

    def __init__(self, make: ClientTls, files: tuple[Path, ...]) -> None:
        self._make, self._files = make, files
        self._lock = threading.Lock()
        self._seen = self._look()
        self._context = make()
        self._said: set[str] = set()

    def __call__(self) -> ssl.SSLContext | None:
        """The context of the newest files that can be used."""
        if self._look() != self._seen:
            with self._lock:
                self._follow()
        return self._context

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(file) for file in self._files)

    def _follow(self) -> None:
        now = self._look()
        if now == self._seen:
            return
        self._seen = now  # what changes while it is read is seen as another change the next time
        try:
            self._context = self._make()
        except InvalidSetting as error:
            if str(error) not in self._said:
                self._said.add(str(error))
                _log.error("TLS files changed and cannot be used; the ones before stay in use. %s", error)
            return
        self._said.clear()
        _log.info("TLS files changed; new connections use them: %s", ", ".join(map(str, self._files)))


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def serving(settings: TlsSettings) -> ssl.SSLContext | None:
    """For listening: each handshake is made with the newest files. None where no certificate is set.

    Raises
    ------
    InvalidSetting
        As :meth:`ktrdr.protocol.tls.TlsSettings.server_context`.
    """
    followed = FollowedContext(
        settings.server_context, _named(settings.cert, settings.key, settings.client_ca)
    )
    context = followed()
    if context is None:
        return None

    def newest(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        del name  # OpenSSL calls this for every client, also for one that names no host
        current = followed()
        assert current is not None
        connection.context = current

    context.sni_callback = newest
    return context


def connecting(settings: TlsSettings) -> ClientTls:
    """For connecting: to be asked before each connection.

    Raises
    ------
    InvalidSetting
        As :meth:`ktrdr.protocol.tls.TlsSettings.client_context`.
    """
    return FollowedContext(settings.client_context, _named(settings.cert, settings.key, settings.ca))


def _named(*files: Path | None) -> tuple[Path, ...]:
    return tuple(file for file in files if file is not None)
