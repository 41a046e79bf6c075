"""The HTTP side of the commands: one call, one JSON answer, every problem raised as the error it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ktrdr import errors
from ktrdr.errors import FieldError, InvalidInput, KtrdrError, ServerUnreachable

if TYPE_CHECKING:
    import httpx

__all__ = ["Api", "Json"]

Json = Any  # parsed JSON; shapes are those of ktrdr.protocol.messages

_PROBLEM = "urn:ktrdr:problem:"


def _error_classes() -> dict[str, type[KtrdrError]]:
    classes = (getattr(errors, name) for name in errors.__all__)
    return {c.slug: c for c in classes if isinstance(c, type) and issubclass(c, KtrdrError)}


class Api:
    """A client of the backend; ``url`` may list several backends separated by commas, tried in order.

    Raises
    ------
    ServerUnreachable
        If none of them answers.
    KtrdrError
        The class that the answer's problem names, with its message and errors.
    """

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 10.0) -> None:
        import httpx  # lazy: `--help` of a command must not pay for it

        self.urls = [part.strip().rstrip("/") for part in url.split(",") if part.strip()]
        self.token = token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # trust_env=False: a proxy variable must not carry loopback traffic or the token elsewhere
        self._http = httpx.Client(headers=headers, timeout=timeout_s, trust_env=False)

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Json:
        """GET below /api/v1; parameters that are None are left out."""
        return self.request("GET", path, params=params).json()

    def post(self, path: str, body: Mapping[str, Any] | None = None, **params: Any) -> Json:
        """POST a JSON body; values that are None are left out."""
        payload = None if body is None else {k: v for k, v in body.items() if v is not None}
        return self.request("POST", path, params=params, json=payload).json()

    def delete(self, path: str) -> None:
        """DELETE; the answer's body is of no interest."""
        self.request("DELETE", path)

    def request(
        self, method: str, path: str, *, params: Mapping[str, Any] | None = None, **options: Any
    ) -> httpx.Response:
        """One request; see the class for what it raises."""
        import httpx  # lazy, see above

        query = {k: v for k, v in (params or {}).items() if v is not None}
        for url in self.urls:
            try:
                answer = self._http.request(method, f"{url}/api/v1{path}", params=query, **options)
            except httpx.TimeoutException:
                raise ServerUnreachable(
                    f"The backend at {url} did not answer in time. Is it overloaded or stopped?"
                ) from None
            except (httpx.TransportError, httpx.InvalidURL, httpx.UnsupportedProtocol):
                continue
            if answer.is_error:
                raise _problem(answer)
            return answer
        raise ServerUnreachable(
            f"No ktrdr backend answers at {', '.join(self.urls)}. Start one with 'ktrdr up', "
            "or point KTRDR_API_URL or --api-url at yours."
        )

    def pages(self, path: str, key: str, limit: int, **params: Any) -> Iterator[Json]:
        """Items of a paged list, at most ``limit``, fetching pages as needed."""
        cursor = None
        while limit > 0:
            page = self.get(path, limit=min(limit, 200), cursor=cursor, **params)
            yield from page[key][:limit]
            limit -= len(page[key])
            cursor = page.get("next_cursor")
            if cursor is None:
                return


def _problem(answer: httpx.Response) -> KtrdrError:
    try:
        body = answer.json()
        slug = str(body.get("type", "")).removeprefix(_PROBLEM)
        detail = str(body.get("detail") or body.get("title"))
        faults = [
            FieldError(e["pointer"], e["message"], e.get("line"), e.get("column"))
            for e in body.get("errors", [])
        ]
    except (ValueError, AttributeError, KeyError, TypeError):
        slug, faults = "", []
        detail = f"{answer.request.url} answered {answer.status_code} without a ktrdr problem; is it a ktrdr backend?"
    cls = _error_classes().get(slug, KtrdrError)
    # The classes' own constructors compose messages; here the message is already composed by the backend.
    error = cls.__new__(cls)
    Exception.__init__(error, detail)
    error.message = detail
    if isinstance(error, InvalidInput):
        error.errors = tuple(faults)
    return error
