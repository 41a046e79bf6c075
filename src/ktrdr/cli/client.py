"""The HTTP side of the commands: one call, one JSON answer, every problem raised as the error it names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from random import uniform
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ktrdr import errors
from ktrdr.errors import (
    FieldError,
    InvalidInput,
    InvalidSetting,
    KtrdrError,
    NoAnswer,
    NotLeader,
    Overloaded,
    ServerUnreachable,
    Unavailable,
)

if TYPE_CHECKING:
    import ssl

    import httpx

    from ktrdr.protocol.tls_renewal import ClientTls

__all__ = ["Api", "Json", "backend_urls", "reworded"]

Json = Any  # parsed JSON; shapes are those of ktrdr.protocol.messages
E = TypeVar("E", bound=KtrdrError)

_PROBLEM = "urn:ktrdr:problem:"
_PREFIX = "/api/v1"
_COME_AGAIN_S = (0.5, 1.0, 2.0)


def _error_classes() -> dict[str, type[KtrdrError]]:
    classes = (getattr(errors, name) for name in errors.__all__)
    return {c.slug: c for c in classes if isinstance(c, type) and issubclass(c, KtrdrError)}


def backend_urls(text: str) -> list[str]:
    """The URLs of one or several backends, separated by commas, without a trailing ``/`` or ``/api/v1``.

    Raises
    ------
    InvalidSetting
        If one of them is no HTTP URL, or there is none.
    """
    urls = [_backend_url(part.strip()) for part in text.split(",") if part.strip()]
    if not urls:
        raise InvalidSetting(f"'{text}' names no backend. Example: http://127.0.0.1:8000")
    return urls


def _backend_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        sound = sound and text.isascii() and not any(character.isspace() for character in text)
    except ValueError:  # a port that is no number, a bracket that is never closed
        sound = False
    if not sound:
        bare = "://" not in text and not text.startswith("/")
        hint = f"; did you mean http://{text}?" if bare and ":" in text else "."
        raise InvalidSetting(
            f"'{text}' is not the URL of a backend{hint} It begins with http or https and names a host. "
            "Example: http://127.0.0.1:8000"
        )
    return text.rstrip("/").removesuffix(_PREFIX)


class Api:
    """A client of the backend; ``url`` may list several backends separated by commas, tried in order: the next one where
    one is away, does not lead and is asked for what the leader alone does, or cannot read the ledger.

    Raises
    ------
    InvalidSetting
        If ``url`` is none.
    ServerUnreachable
        If none of them answers, or what answers is no ktrdr backend.
    NoAnswer
        If a request was sent and no answer came: it may have been carried out.
    KtrdrError
        The class that the answer's problem names, with its message and errors.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        timeout_s: float = 10.0,
        *,
        tls: ssl.SSLContext | ClientTls | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.urls = backend_urls(url)
        self._at = 0  # of the one that answered last
        self.token = token
        self._timeout_s, self._pause = timeout_s, pause
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._tls = tls
        self._made_with = self.tls
        self._http = self._connections()

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What a new connection is made with."""
        return self._tls() if callable(self._tls) else self._tls

    def _connections(self) -> httpx.Client:
        import httpx  # lazy: `--help` of a command must not pay for it

        verify = True if self._made_with is None else self._made_with
        # trust_env=False: a proxy variable must not carry loopback traffic or the token elsewhere
        return httpx.Client(headers=self._headers, trust_env=False, verify=verify)

    def _client(self) -> httpx.Client:
        """Connections that know the files of today: somebody may follow an operation for days."""
        if (tls := self.tls) is not self._made_with:
            self._http.close()
            self._made_with = tls
            self._http = self._connections()
        return self._http

    def get(self, path: str, **params: Any) -> Json:
        """GET below /api/v1; parameters that are None are left out."""
        return _object(self.request("GET", path, params=params))

    def post(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
        **params: Any,
    ) -> Json:
        """POST a JSON body; values that are None are left out."""
        payload = None if body is None else {k: v for k, v in body.items() if v is not None}
        return _object(self.request("POST", path, params=params, json=payload, timeout_s=timeout_s))

    def upload(
        self, path: str, content: Any, *, timeout_s: float, headers: Mapping[str, str], **params: Any
    ) -> Json:
        """POST a file."""
        answer = self.request(
            "POST", path, params=params, content=content, timeout_s=timeout_s, headers=dict(headers)
        )
        return _object(answer)

    def delete(self, path: str) -> None:
        """DELETE; a backend's answer to it is empty."""
        answer = self.request("DELETE", path)
        if answer.status_code != 204:
            raise _stranger(answer)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        **options: Any,
    ) -> httpx.Response:
        """One request, sent again a few times where every backend has too much to do; see the class for what it raises."""
        for pause_s in _COME_AGAIN_S:
            try:
                return self._request(method, path, params=params, timeout_s=timeout_s, **options)
            except Overloaded:  # nothing was recorded
                # all who were refused must not come back at once
                self._pause(pause_s * uniform(0.5, 1.5))  # noqa: S311 (no secret)
        return self._request(method, path, params=params, timeout_s=timeout_s, **options)

    def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None,
        timeout_s: float | None,
        **options: Any,
    ) -> httpx.Response:
        import httpx  # lazy: `--help` of a command must not pay for it

        query = {k: v for k, v in (params or {}).items() if v is not None}
        patience_s = timeout_s or self._timeout_s

        def send(url: str) -> httpx.Response:
            return self._client().request(
                method, f"{url}{_PREFIX}{path}", params=query, timeout=patience_s, **options
            )

        faults: list[str] = []
        refusal: KtrdrError | None = None
        for url in [*self.urls[self._at :], *self.urls[: self._at]]:
            try:
                try:
                    answer = send(url)
                except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                    if method != "GET":
                        raise
                    answer = send(
                        url
                    )  # a restarted backend knows nothing of the connection that was kept open
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                faults.append(_untrusted(url, str(error)))
                continue  # the request did not leave; the next backend may have it
            except httpx.TransportError as error:
                refusal = _no_answer(url, error, patience_s)
                if method != "GET":
                    raise refusal from None
                continue  # asking twice does no harm
            if not answer.is_error:
                # the one before may stand still, which takes a while to find out
                self._at = self.urls.index(url)
                return answer
            refusal = _problem(answer)
            # a read that one backend cannot answer, for want of the ledger, another one may
            elsewhere = isinstance(refusal, NotLeader | Overloaded)
            if not elsewhere and not (method == "GET" and type(refusal) is Unavailable):
                raise refusal
        if refusal is not None:
            raise refusal
        if told := " ".join(filter(None, faults)):
            raise ServerUnreachable(told)
        raise ServerUnreachable(
            f"No ktrdr backend answers at {', '.join(self.urls)}. Start one with 'ktrdr up', "
            "or point KTRDR_API_URL or --api-url at yours."
        )

    def pages(
        self, path: str, key: str, limit: float = float("inf"), *, page: int = 200, **params: Any
    ) -> Iterator[Json]:
        """Items of a paged list, at most ``limit``, fetching pages of ``page`` items as needed."""
        cursor = None
        while limit > 0:
            answer = self.get(path, limit=int(min(limit, page)), cursor=cursor, **params)
            for item in answer[key]:
                yield item
                limit -= 1
            cursor = answer.get("next_cursor")
            if cursor is None:
                return


def _untrusted(url: str, told: str) -> str:
    """What to do about a certificate that was not accepted; empty if that was not the fault."""
    if "CERTIFICATE_VERIFY_FAILED" in told:
        reason = told.partition("verify failed: ")[2].partition(" (_ssl")[0] or told
        return (
            f"The certificate that {url} shows is not accepted: {reason}. "
            "Set KTRDR_TLS_CA to the certificate of the authority that signed it."
        )
    if "WRONG_VERSION_NUMBER" in told or "UNKNOWN_PROTOCOL" in told:
        return f"What answers at {url} does not speak TLS. Is it http:// there?"
    return ""


def _why_broken(url: str, told: str) -> str:
    certificate = "set KTRDR_TLS_CERT and KTRDR_TLS_KEY."
    if "certificate required" in told.lower().replace("_", " "):
        return f"This backend demands a client's certificate: {certificate}"
    secure = url.startswith("https://")
    hint = (
        f"demands certificates of its clients, {certificate}"
        if secure
        else "speaks TLS, its URL is https://."
    )
    return f"Is a ktrdr backend there, and did it just restart? If it {hint}"


def reworded(error: E, message: str) -> E:
    """The same error with another message."""
    Exception.__init__(error, message)
    error.message = message
    return error


def _object(answer: httpx.Response) -> Json:
    """The JSON object that every answer of a backend is."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise _stranger(answer)
    return body


def _no_answer(url: str, error: httpx.TransportError, patience_s: float) -> NoAnswer:
    import httpx  # lazy, see above

    if isinstance(error, httpx.TimeoutException):
        told = f"The backend at {url} did not answer within {patience_s:.0f} s. Is it overloaded or stopped?"
    else:
        told = f"The connection to {url} broke off ({error}). {_why_broken(url, str(error))}"
    return NoAnswer(told)


def _stranger(answer: httpx.Response) -> ServerUnreachable:
    kind = answer.headers.get("content-type", "no type").split(";")[0]
    return ServerUnreachable(
        f"What answers at {answer.request.url} is not a ktrdr backend (status {answer.status_code}, {kind}). "
        "Point KTRDR_API_URL or --api-url at yours, or start one with 'ktrdr up'."
    )


def _problem(answer: httpx.Response) -> KtrdrError:
    try:
        body = answer.json()
        slug = body["type"].removeprefix(_PROBLEM)
        detail = str(body.get("detail") or body.get("title"))
        faults = [
            FieldError(e["pointer"], e["message"], e.get("line"), e.get("column"))
            for e in body.get("errors", [])
        ]
    except (ValueError, AttributeError, KeyError, TypeError):
        return _stranger(answer)
    cls = _error_classes().get(slug, KtrdrError)
    # The classes' own constructors compose messages; here the message is already composed by the backend.
    error = reworded(cls.__new__(cls), detail)
    if isinstance(error, InvalidInput):
        error.errors = tuple(faults)
    return error
