"""Strings that try to lead out of a folder, made systematically: spellings of dots x separators x depths x targets."""

from __future__ import annotations

from itertools import product

__all__ = ["traversals"]

_DOTS = ("..", "%2e%2e", ".%2e", "%2E.", "%252e%252e", "\uff0e\uff0e", "..%00", "..;", "....", "%c0%ae%c0%ae")
_SEPARATORS = ("/", "\\", "%2f", "%5c", "%252f", "\u2215", "\uff0f", "%c0%af", "//", "/./")
_DEPTHS = (1, 4)
_TARGETS = ("secret.yaml", "secret")
_WHOLE = (
    "..",
    "../",
    "..\\",
    "/etc/passwd",
    "//etc/passwd",
    "/proc/self/environ",
    "\\\\server\\share\\secret",
    "C:\\secret.yaml",
    "C:/secret.yaml",
    "file:///etc/passwd",
    "~/secret.yaml",
    "~root/secret.yaml",
    "$HOME/secret.yaml",
    "${HOME}/secret.yaml",
    "./../secret.yaml",
    "x/../../secret.yaml",
    "x/..\\../secret.yaml",
    "secret.yaml\x00.yaml",
    "../secret.yaml\x00",
    "../secret\n",
    "../secret\r\nX-Header: y",
    "link/secret.yaml",
    "CON/../secret",
    "..%u2216secret.yaml",
    "..\u2024/secret",
    "\u202e../secret",
)


def traversals() -> list[str]:
    """All of them, each once."""
    made = [
        (dots + separator) * depth + target
        for dots, separator, depth, target in product(_DOTS, _SEPARATORS, _DEPTHS, _TARGETS)
    ]
    return list(dict.fromkeys([*made, *_WHOLE]))
