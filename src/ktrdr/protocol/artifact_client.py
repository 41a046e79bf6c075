"""Artifacts of the backend, by digest, over plain HTTP: what a job's process reads and a worker delivers.

Synchronous on purpose: it runs inside job processes and in worker threads, with the standard library alone.
"""

from __future__ import annotations

import http.client
import random
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from ktrdr.artifacts import FileArtifactStore
from ktrdr.errors import (
    CorruptArtifact,
    InvalidSetting,
    KtrdrError,
    NotAuthorised,
    NotFound,
    ServerUnreachable,
)
from ktrdr.protocol.tls_renewal import ClientTls

__all__ = ["CachedArtifacts", "split_urls"]

_CHUNK = 1 << 20
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.2, 5.0


def split_urls(text: str) -> tuple[str, ...]:
    """Backend URLs from a setting: separated by commas, blanks and trailing slashes removed.

    Raises
    ------
    InvalidSetting
        If there is none, or one is not ``http(s)://host[:port]``.
    """
    urls = tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise InvalidSetting(f"'{url}' is not a backend URL. Example: http://127.0.0.1:8000")
    if not urls:
        raise InvalidSetting("No backend URL is given. Example: http://127.0.0.1:8000")
    return urls


class _Refusal(Exception):
    """An HTTP answer that is neither success nor absence; ``final`` if asking again cannot help."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"answered {status}: {detail}")
        self.status = status
        self.final = status < 500 and status not in (408, 429)


class CachedArtifacts:
    """An :class:`ktrdr.artifacts.ArtifactStore` that fetches what its local cache lacks.

    ``put`` stores locally only; ``upload`` brings artifacts to the backend. Every fetched byte is verified before
    it is used, a damaged cached file is fetched again. Safe for several threads and processes at once.

    Parameters
    ----------
    cache
        The local store.
    backend_url
        One URL or several separated by commas; each is asked in turn.
    token
        Bearer credential, where the backend wants one.
    timeout_s
        Bound on each wait for the network, not on a whole transfer.
    attempts
        Rounds over all backends before giving up; between them it waits with exponential back-off.
    tls
        For https URLs, asked before each connection; None trusts what the system trusts.
    sleep
        How to wait; a parameter for tests.
    """

    def __init__(
        self,
        cache: FileArtifactStore,
        backend_url: str,
        token: str | None = None,
        *,
        timeout_s: float = 10.0,
        attempts: int = 5,
        tls: ClientTls | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.cache = cache
        self._urls = split_urls(backend_url)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout_s, self._attempts, self._sleep = timeout_s, attempts, sleep
        self._tls = tls

    def put(self, content: bytes) -> str:
        return self.cache.put(content)

    def has(self, digest: str) -> bool:
        """Whether :meth:`path` would find it, here or at a backend."""
        return self.cache.has(digest) or self._in_turn(digest, self._exists)

    def path(self, digest: str) -> Path:
        """The verified local file, fetched if need be.

        Raises
        ------
        NotFound
            If no backend has it.
        NotAuthorised
            If the backend refuses the credential.
        CorruptArtifact
            If every transfer gave other bytes.
        ServerUnreachable
            If no backend answered in any round.
        """
        try:
            return self.cache.path(digest)
        except CorruptArtifact:
            self.cache.delete(digest)
        except NotFound:
            pass
        if not self._in_turn(digest, self._fetch):
            raise NotFound("artifact", digest, hint=f"Neither the cache nor {', '.join(self._urls)} has it.")
        return self.cache.path(digest)

    def read(self, digest: str) -> bytes:
        return self.path(digest).read_bytes()

    def upload(self, digest: str) -> None:
        """Bring a cached artifact to the backend unless it has it already, undamaged; streamed.

        Raises
        ------
        NotFound
            If the cache does not have it.
        NotAuthorised, CorruptArtifact, ServerUnreachable
            As in :meth:`path`.
        """
        file = self.cache.path(digest)
        self._in_turn(digest, lambda url, name: self._whole(url, name) or self._send(url, name, file))

    def _in_turn(self, digest: str, ask: Callable[[str, str], bool]) -> bool:
        """Ask each backend, round after round; False once all of them answered that they do not have it."""
        delay_s, faults = _FIRST_DELAY_S, [""]
        for round_ in range(self._attempts):
            if round_:
                self._sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 (jitter, not a secret)
                delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
            faults, corrupt = [], None
            for url in self._urls:
                try:
                    if ask(url, digest):
                        return True
                except CorruptArtifact as error:
                    corrupt = error
                    faults.append(f"{url}: {error}")
                except _Refusal as refusal:
                    if refusal.final:
                        raise _refused(url, digest, refusal) from None
                    faults.append(f"{url} {refusal}")
                except (OSError, http.client.HTTPException) as error:
                    faults.append(f"{url}: {error or type(error).__name__}")
            if not faults:
                return False
        if corrupt is not None:
            raise corrupt
        raise ServerUnreachable(
            f"Artifact {digest} could not be transferred in {self._attempts} attempts ({'; '.join(faults)}). "
            "Is the backend running, and is KTRDR_API_URL right?"
        )

    def _exists(self, url: str, digest: str) -> bool:
        with _Exchange(url, self._timeout_s, self._tls) as exchange:
            response = exchange.ask("HEAD", digest, self._headers)
            return _found(response)

    def _whole(self, url: str, digest: str) -> bool:
        try:
            return self._exists(url, digest)
        except _Refusal as refusal:
            if refusal.status == 500:  # its copy is damaged; sending it again repairs that
                return False
            raise

    def _fetch(self, url: str, digest: str) -> bool:
        with _Exchange(url, self._timeout_s, self._tls) as exchange:
            response = exchange.ask("GET", digest, self._headers)
            if not _found(response):
                return False
            self.cache.put_stream(_chunks(response), digest)
            return True

    def _send(self, url: str, digest: str, file: Path) -> bool:
        headers = {
            **self._headers,
            "Content-Type": "application/octet-stream",
            "Content-Length": str(file.stat().st_size),
        }
        with _Exchange(url, self._timeout_s, self._tls) as exchange, file.open("rb") as body:
            if not _found(exchange.ask("PUT", digest, headers, body)):
                raise _Refusal(502, "it keeps no artifacts at this address")
            return True


def _refused(url: str, digest: str, refusal: _Refusal) -> KtrdrError:
    if refusal.status in (401, 403):
        return NotAuthorised(
            f"{url} {refusal}. Set the worker's KTRDR_ENROLMENT_TOKEN to the backend's, or to a token of scope worker, "
            "and start it again."
        )
    return KtrdrError(f"Artifact {digest}: {url} {refusal}")


def _found(response: http.client.HTTPResponse) -> bool:
    if 200 <= response.status < 300:
        return True
    if response.status == 404:
        return False
    detail = response.read(300).decode(errors="replace").strip() or response.reason
    raise _Refusal(response.status, detail)


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while chunk := response.read(_CHUNK):
        yield chunk


class _Exchange:
    """One connection for one request, closed at the end; proxies of the environment are not used."""

    def __init__(self, url: str, timeout_s: float, tls: ClientTls | None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._prefix = parts.path
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = (tls() if tls is not None else None) or ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=timeout_s, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)

    def __enter__(self) -> _Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(
        self, method: str, digest: str, headers: dict[str, str], body: object = None
    ) -> http.client.HTTPResponse:
        path = f"{self._prefix}/api/v1/artifacts/{digest}"
        self._connection.request(method, path, body=body, headers=headers)  # type: ignore[arg-type]
        return self._connection.getresponse()
