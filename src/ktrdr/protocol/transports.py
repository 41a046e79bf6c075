"""How one process asks another: a two-method interface, so that a whole fleet also runs inside one test.

``AiohttpTransport`` is real HTTP, ``AsgiTransport`` calls applications in this process.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import resource
import socket
import ssl
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from ktrdr.errors import InvalidInput, NoAnswer, ServerUnreachable
from ktrdr.protocol.allowed import Network, address_allowed
from ktrdr.protocol.hosts import is_address
from ktrdr.protocol.lanes import Lanes, NotPlain, Unconnected
from ktrdr.protocol.tls_renewal import ClientTls

__all__ = ["AiohttpTransport", "Answer", "AsgiTransport", "Transport"]

AsgiApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]],
    Awaitable[None],
]
_MAX_ANSWER_BYTES = 1 << 20
_KEEPALIVE_S = 25.0  # below our servers' 30 s, so that a pooled connection is rarely one the peer just closed
_REMEMBERED_HOSTS = 1 << 14


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read whole. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def ok(self) -> bool:
        """True for 2xx."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON.

        Raises
        ------
        InvalidInput
            If it is not JSON.
        """
        try:
            return jsonlib.loads(self.body)
        except ValueError:
            start = self.body[:80].decode(errors="replace")
            raise InvalidInput(f"The answer ({self.status}) is not JSON; it starts with: {start!r}") from None


class Transport(Protocol):
    """Sends requests.

    Laws
    ----
    - Every HTTP status is an Answer, never an exception. Redirects are not followed, proxies not used.
    - ServerUnreachable means that the request did not leave; its subclass NoAnswer that the outcome is unknown.
    - ``timeout_s`` bounds the whole request. An answer of more than 1 MiB is refused (InvalidInput).
    """

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
    ) -> Answer: ...

    async def close(self) -> None: ...


class _Resolver(AbstractResolver):
    """Resolves names and drops every address outside the allowed networks, at each connection.

    A name that changes its address later (DNS rebinding) therefore leads nowhere new.
    """

    def __init__(self, networks: Sequence[Network] | None) -> None:
        self._networks = networks

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        results: list[ResolveResult] = []
        for got, _, protocol, _, address in found:
            ip = str(address[0])
            if self._networks is None or address_allowed(ip, self._networks):
                results.append(
                    ResolveResult(hostname=host, host=ip, port=port, family=got, proto=protocol, flags=0)
                )
        if not results:
            raise OSError(None, f"'{host}' has no address inside the allowed networks")
        return results

    async def close(self) -> None:
        """Nothing is held."""


class AiohttpTransport:
    """HTTP with a connection pool, bound to the running loop at first use.

    Questions (GET) to plain-HTTP servers named by their address go by :class:`Lanes`, everything else by aiohttp.

    Making a connection costs more than a probe on one that is there, so one to each host is kept until the next round,
    as far as descriptors allow: of ``kept_hosts`` hosts, those that came first; all others are closed after use.

    Parameters
    ----------
    networks
        If given, connections are made only to addresses inside these networks.
    kept_hosts
        None: half of what the process may open (its soft limit) at the first request.
    tls
        For https URLs, asked before each request; None trusts what the system trusts.
    """

    def __init__(
        self,
        networks: Sequence[Network] | None = None,
        *,
        kept_hosts: int | None = None,
        tls: ClientTls | None = None,
    ) -> None:
        self._networks = networks
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._kept = _KeptHosts(kept_hosts)
        self._lanes = Lanes(_KEEPALIVE_S, _MAX_ANSWER_BYTES)
        self._not_plain: set[str] = set()  # whose answers need a whole HTTP client
        self._allowed = lru_cache(_REMEMBERED_HOSTS)(self._host_allowed)

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
    ) -> Answer:
        try:
            target = URL(url)
        except ValueError:
            raise InvalidInput(f"'{url}' is not an http(s) URL.") from None
        if not self._allowed(target.host or ""):
            raise ServerUnreachable(f"{url} lies outside the allowed networks.")
        host = target.authority
        keeps = self._kept.begin(host)
        if not keeps:
            headers = {**(headers or {}), "connection": "close"}
        try:
            if keeps and method == "GET" and json is None and target.scheme == "http":
                with suppress(NotPlain):
                    return await self._plainly(target, headers or {}, timeout_s)
            async with self._pool().request(
                method, target,
                json=json, headers=headers, timeout=_timeout(timeout_s), allow_redirects=False,
                ssl=self._trusted(target),
            ) as response:  # fmt: skip
                body = await _read_capped(response, url)
                return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, body)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ServerUnreachable(f"Cannot connect to {url}: {_reason(error)}.") from error
        except Unconnected as error:
            raise ServerUnreachable(f"Cannot connect to {url}: {_reason(error)}.") from error
        except aiohttp.InvalidURL:
            raise InvalidInput(f"'{url}' is not an http(s) URL.") from None
        except TimeoutError as error:
            raise NoAnswer(f"{url} did not answer within {timeout_s:g} s.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswer(f"{url} broke off the connection: {_reason(error)}.") from error
        finally:
            self._kept.end(host)

    def _trusted(self, target: URL) -> ssl.SSLContext | bool:
        """Connections are pooled by this, so none that was made with older files is taken for a new request."""
        if self._tls is None or target.scheme != "https":
            return True
        return self._tls() or True

    async def _plainly(self, target: URL, headers: Mapping[str, str], timeout_s: float) -> Answer:
        """A question to a server that is named by its address; raises NotPlain if that is not the way to ask it."""
        host, port = target.host or "", target.port
        if port is None or target.authority in self._not_plain or not is_address(host):
            raise NotPlain
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        if lines.count("\n") != len(headers) or not lines.isascii():
            raise NotPlain
        head = f"GET {target.raw_path_qs} HTTP/1.1\r\nhost: {target.authority}\r\n{lines}\r\n"
        try:
            reply = await self._lanes.get(host, port, head.encode(), timeout_s)
        except NotPlain:
            if len(self._not_plain) >= _REMEMBERED_HOSTS:
                self._not_plain.clear()
            self._not_plain.add(target.authority)
            raise
        return Answer(reply.status, reply.headers, reply.body)

    def _host_allowed(self, host: str) -> bool:
        """Whether an address may be connected to; names are judged when they are resolved."""
        return self._networks is None or not is_address(host) or address_allowed(host, self._networks)

    async def close(self) -> None:
        self._lanes.close()
        await asyncio.sleep(0)  # for the loop to end them
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _pool(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=0,
                limit_per_host=16,
                resolver=_Resolver(self._networks),
                keepalive_timeout=_KEEPALIVE_S,
            )
            self._session = aiohttp.ClientSession(
                connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session


class _KeptHosts:
    """The hosts whose connections are kept, and since when they were not used; at most ``limit``.

    One connection of each host is kept. The pool takes the one that rested longest, so what several requests at once
    have opened would never rest long enough to be closed, as long as the host is asked again and again.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._used: OrderedDict[str, float] = OrderedDict()
        self._under_way: Counter[str] = Counter()

    def begin(self, host: str) -> bool:
        """Note a request to the host; whether its connection may stay open. Each is followed by its ``end``."""
        self._under_way[host] += 1
        return self._under_way[host] == 1 and self._keeps(host)

    def end(self, host: str) -> None:
        """The request is over."""
        if self._under_way[host] == 1:
            del self._under_way[host]
        else:
            self._under_way[host] -= 1

    def _keeps(self, host: str) -> bool:
        now = time.monotonic()
        if host not in self._used and len(self._used) >= self._room():
            oldest, used_at = next(iter(self._used.items()), ("", now))
            if now - used_at < _KEEPALIVE_S:
                return False
            del self._used[oldest]
        self._used[host] = now
        self._used.move_to_end(host)
        return True

    def _room(self) -> int:
        if self._limit is None:
            self._limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        return self._limit


@lru_cache(64)
def _timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds, sock_connect=seconds)


async def _read_capped(response: aiohttp.ClientResponse, url: str) -> bytes:
    size = response.content_length
    if size is not None and size <= _MAX_ANSWER_BYTES and "content-encoding" not in response.headers:
        return await response.read()  # it cannot be longer than it says
    body = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > _MAX_ANSWER_BYTES:
            response.close()
            raise InvalidInput(f"The answer of {url} is larger than 1 MiB.")
    return bytes(body)


def _reason(error: BaseException) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


class AsgiTransport:
    """Calls ASGI applications of this process; their lifespan is the caller's business.

    Parameters
    ----------
    apps
        Base URL (``http://worker-1``) to application. The mapping is read at each request, so taking an
        application out of it makes the "machine" unreachable.
    """

    def __init__(self, apps: Mapping[str, AsgiApp]) -> None:
        self._apps = apps

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
    ) -> Answer:
        parts = urlsplit(url)
        app = self._apps.get(f"{parts.scheme}://{parts.netloc}")
        if app is None:
            raise ServerUnreachable(f"Cannot connect to {url}: no such application.")
        body = b"" if json is None else jsonlib.dumps(json).encode()
        sent = {"host": parts.netloc, "content-length": str(len(body)), **(headers or {})}
        if json is not None:
            sent["content-type"] = "application/json"
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": parts.scheme,
            "path": unquote(parts.path),
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "root_path": "",
            "headers": [(k.lower().encode(), v.encode()) for k, v in sent.items()],
            "client": ("127.0.0.1", 1),
            "server": (parts.hostname, parts.port or 80),
        }
        try:
            async with asyncio.timeout(timeout_s):
                return await _call(app, scope, body)
        except TimeoutError as error:
            raise NoAnswer(f"{url} did not answer within {timeout_s:g} s.") from error

    async def close(self) -> None:
        """Nothing is held."""


async def _call(app: AsgiApp, scope: dict[str, Any], body: bytes) -> Answer:
    inbox = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[dict[str, Any]] = []
    finished = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if inbox:
            return inbox.pop()
        await finished.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    try:
        await app(scope, receive, send)
    finally:
        finished.set()
    if not sent:
        raise NoAnswer(f"The application at {scope['path']} ended without an answer.")
    headers = {k.decode().lower(): v.decode() for k, v in sent[0]["headers"]}
    return Answer(sent[0]["status"], headers, b"".join(part.get("body", b"") for part in sent[1:]))
