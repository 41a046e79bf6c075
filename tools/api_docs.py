"""Write ``docs/reference/api.md`` from the backend's OpenAPI document, so that the page and the routes never differ."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ktrdr.backend.access.scopes import ROUTES
from ktrdr.backend.app import create_app
from ktrdr.backend.config import BackendConfig

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "api.md"
HEAD = """# HTTP API

Generated from the backend's OpenAPI document by `make docs`; a test compares. A running backend serves the document
itself at `/openapi.json` and a page to try it at `/docs`.

- Bodies and answers are JSON, unless a route says otherwise; a JSON body may have up to 1 MiB. Unknown keys are refused.
- Query parameters that a route does not have, and those given twice that are no lists, are refused with 422: a misspelt
  filter does not answer with everything. The same holds at workers.
- Every error is an RFC 9457 problem (`application/problem+json`): `type` (`urn:ktrdr:problem:...`), `title`, `status`,
  `detail`, and for faults in the request `errors` with `pointer`, `message`, and for documents `line` and `column`.
- POSTs that start work honour `Idempotency-Key`: the same key and request give the same operation, whatever changed
  meanwhile (a newer model, other data); another body or route gives 422. `when_busy` is no part of the comparison.
- 503 with `Retry-After` means that a request may be sent again after so many seconds. Of type
  `urn:ktrdr:problem:overloaded`, to submissions, retries and resumptions, it comes at once and nothing was recorded.
- What is read again and again (operations, lists, metrics, artifacts) carries an `ETag`; with `If-None-Match` an unchanged
  one is `304` without a body.
- Lists answer `total` and `next_cursor`. Of operations, of rows of results and in the audit record (which has no `total`)
  it is what to pass as `cursor` for the next page; the other lists are whole, and it is null.
- Off loopback every route but `/health` needs `Authorization: Bearer TOKEN`, with a token of the scope that the route
  names here ([Security](../explanation/security.md)); `KTRDR_API_TOKEN` has all scopes. Without a valid token the answer
  is 401, without the scope 403. On loopback no token is needed unless `KTRDR_API_TOKEN` is set; requests must then name
  a local host, and pages of other origins are refused.
- Times are ISO 8601 in UTC. Dates in requests include the whole day.
"""
TAGS = {
    "health": "Health",
    "start": "Starting work",
    "operations": "Operations",
    "workers": "Workers",
    "data": "Market data",
    "models": "Models",
    "strategies": "Strategies and indicators",
    "artifacts": "Artifacts",
    "metrics": "Metrics",
    "access": "Access",
}
METHODS = ("get", "head", "post", "put", "delete")


def _reference(schema: Mapping[str, Any]) -> str:
    name = str(schema["$ref"]).rpartition("/")[2]
    return f"[{name}](#{name.lower()})"


def _kind(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, for a table cell."""
    if "$ref" in schema:
        return _reference(schema)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if parts := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(_kind(part) for part in parts))
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return f"[{', '.join(_kind(item) for item in schema['prefixItems'])}]"
        return f"list of {_kind(schema.get('items', {}))}"
    if schema.get("type") == "object":
        values = schema.get("additionalProperties")
        return f"object of {_kind(values)}" if isinstance(values, dict) and values else "object"
    word = {"date-time": "time", "binary": "bytes"}.get(schema.get("format", ""), schema.get("type", "any"))
    return f"{word}{_limits(schema)}"


def _limits(schema: Mapping[str, Any]) -> str:
    signs = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    found = [f"{words} {schema[key]}" for key, words in signs.items() if key in schema]
    return f" ({', '.join(found)})" if found else ""


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _default(schema: Mapping[str, Any], required: bool) -> str:
    if required:
        return "required"
    value = schema.get("default")
    return "" if value is None or value in ([], {}) else f"`{_cell(value)}`"


def _parameters(parameters: list[dict[str, Any]]) -> Iterator[str]:
    rows = [p for p in parameters if p["in"] != "path"]
    if not rows:
        return
    yield "| parameter | in | type | default | meaning |\n|---|---|---|---|---|"
    for p in rows:
        schema = p["schema"]
        meaning = _cell(p.get("description") or schema.get("description") or "")
        default = _default(schema, bool(p.get("required")))
        yield f"| `{p['name']}` | {p['in']} | {_cell(_kind(schema))} | {default} | {meaning} |"
    yield ""


def _content(node: Mapping[str, Any]) -> str | None:
    for media, value in node.get("content", {}).items():
        if media == "application/octet-stream":
            return "bytes (`application/octet-stream`)"
        if schema := value.get("schema"):
            return _kind(schema)
    return None


def _route(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {method.upper()} {path}\n"
    scopes = " or ".join(f"`{scope}`" for scope in sorted(ROUTES[f"{method.upper()} {path}"]))
    yield f"Scope: {scopes or 'none, open to everybody'}.\n"
    yield " ".join(operation.get("description", "").split()) + "\n"
    yield from _parameters(operation.get("parameters", []))
    if (body := operation.get("requestBody")) and (kind := _content(body)):
        yield f"Body: {kind}.\n"
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            kind = _content(answer)
            yield f"Answer {status}{f': {kind}' if kind and kind != 'any' else ''}.\n"


def _schema(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {name}\n"
    text = " ".join(schema.get("description", "").split())
    if text:
        yield text + "\n"
    if "enum" in schema:
        yield f"One of {_kind(schema)}.\n"
    if properties := schema.get("properties"):
        yield "| field | type | default | meaning |\n|---|---|---|---|"
        for key, value in properties.items():
            default = _default(value, key in schema.get("required", []))
            yield f"| `{key}` | {_cell(_kind(value))} | {default} | {_cell(value.get('description', ''))} |"
        yield ""


def render() -> str:
    """The page's text."""
    with tempfile.TemporaryDirectory() as home:
        document = create_app(BackendConfig(home=Path(home))).openapi()
    lines = [HEAD]
    for tag, title in TAGS.items():
        lines.append(f"## {title}\n")
        for path, item in document["paths"].items():
            for method in METHODS:
                if method in item and tag in item[method].get("tags", []):
                    lines += _route(method, path, item[method])
    lines.append("## Messages\n")
    for name, schema in sorted(document["components"]["schemas"].items()):
        if not name.startswith(("HTTPValidation", "ValidationError")):
            lines += _schema(name, schema)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(render())
    sys.stdout.write(f"wrote {PAGE.name}\n")
