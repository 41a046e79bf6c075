"""Query parameters that a route does not know are refused: a misspelt filter must not answer with everything.

Workers do the same, so a backend may send them only what workers of the minor version before know, as in bodies.
"""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.routing import APIRoute

from ktrdr.errors import FieldError, InvalidInput, nearest

__all__ = ["known_query"]

_LONGEST_NAME = 60
_MOST_TOLD = 10


async def known_query(request: Request) -> None:
    """A dependency of a whole application: the request's parameters are those of its route, each given once unless it
    is a list.

    Raises
    ------
    InvalidInput
        With a fault for each name that is not the route's or stands there more than once.
    """
    query: bytes = request.scope["query_string"]
    route = request.scope.get("route")
    if not query or not isinstance(route, APIRoute):
        return
    known = _declared(route)
    given = Counter(name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    faults = [
        fault for name, count in given.items() if (fault := _fault(name, count, known, request.url.path))
    ]
    if faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise InvalidInput(
            f"The request has {count}; the first: {faults[0].pointer}: {faults[0].message}",
            faults[:_MOST_TOLD],
        )


def _fault(name: str, count: int, known: Mapping[str, bool], path: str) -> FieldError | None:
    shown = name[:_LONGEST_NAME]
    pointer = f"query/{shown.replace('~', '~0').replace('/', '~1')}"
    if name not in known:
        accepted = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
        hint = nearest(shown, known) or "."
        return FieldError(pointer, f"{path} has no query parameter {shown!r}; {accepted}{hint}")
    if count > 1 and not known[name]:
        return FieldError(pointer, f"is there {count} times; {path} takes it once.")
    return None


def _declared(route: APIRoute) -> Mapping[str, bool]:
    """The route's query parameters by the names that requests use; whether each may be repeated."""
    found: dict[str, bool] = {}
    waiting = [route.dependant]
    while waiting:
        dependant = waiting.pop()
        found |= {field.alias: _is_list(field.field_info.annotation) for field in dependant.query_params}
        waiting += dependant.dependencies
    return found


def _is_list(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType, Annotated):
        return any(_is_list(part) for part in get_args(annotation))
    return annotation is list or origin is list
