"""What an idempotency key stands for: the request that it came with."""

from __future__ import annotations

import json

from pydantic import BaseModel

from ktrdr.artifacts import sha256_of

__all__ = ["request_digest"]


def request_digest(what: str, request: BaseModel | str) -> str:
    """SHA-256 of what is asked: a body, or the id of an operation.

    A field that says what it would be without being said makes no difference, nor does the order of fields; so a
    later version with more fields has the same digest for the same body. ``when_busy`` makes none either: whoever got
    no answer and then decides to wait asks for the same work.
    """
    asked: object = request
    if isinstance(request, BaseModel):
        asked = request.model_dump(mode="json", exclude_defaults=True, exclude={"when_busy"})
    return sha256_of(json.dumps([what, asked], sort_keys=True).encode())
