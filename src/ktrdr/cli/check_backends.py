"""``ktrdr doctor`` on several backends of one ledger: who answers, who leads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ktrdr.cli.check import LOCAL_S, Check
from ktrdr.cli.client import backend_urls
from ktrdr.protocol.tls import client_context

__all__ = ["check_backends"]

_ADVICE = {
    "silent": "Start those that do not answer, or take them out of KTRDR_API_URL.",
    "none": "Do they reach their database? Within seconds one of them should lead; their logs say more.",
    "many": "They have ledgers of their own: give all of them the same KTRDR_DATABASE_URL, or list one here.",
}


def check_backends(url: str) -> Iterator[Check]:
    """Whether the backends of ``url`` answer and one of them leads. Says nothing of one that is alone."""
    said = {one: _health(one) for one in backend_urls(url)}
    roles = {one: str(body.get("role", "leader")) for one, body in said.items() if body}
    if len(said) == 1 and set(roles.values()) != {"follower"}:
        return
    told = ", ".join(f"{one} {_shown(body)}" for one, body in said.items())
    leading = [one for one, role in roles.items() if role == "leader"]
    if len(said) == 1:
        advice = "List the addresses of all backends in KTRDR_API_URL; workers register with the leader."
        yield Check("backends", "warn", told, advice)
    elif len(leading) > 1:
        yield Check("backends", "fail", told, _ADVICE["many"])
    elif not leading:
        yield Check("backends", "warn", told, _ADVICE["none"])
    elif len(roles) < len(said):
        yield Check("backends", "warn", told, _ADVICE["silent"])
    else:
        yield Check("backends", "ok", told)


def _shown(body: Mapping[str, Any]) -> str:
    if not body:
        return "does not answer"
    epoch = body.get("epoch")
    verb = "leads" if body.get("role", "leader") == "leader" else "follows"
    return verb if epoch is None else f"{verb} (epoch {epoch})"


def _health(url: str) -> Mapping[str, Any]:
    import httpx  # lazy, as in the client

    try:
        tls = client_context()
        verify = True if tls is None else tls
        body = httpx.get(f"{url}/health", timeout=LOCAL_S, trust_env=False, verify=verify).json()
    except (httpx.HTTPError, ValueError):
        return {}
    return body if isinstance(body, dict) and body.get("status") == "healthy" else {}
