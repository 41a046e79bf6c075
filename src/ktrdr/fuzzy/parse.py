"""From what people write to membership functions: point lists, mappings with a type, keyword arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import MappingProxyType

from ktrdr.errors import FieldError, InvalidInput, nearest
from ktrdr.fuzzy.curves import Bell, Gaussian, Sigmoid
from ktrdr.fuzzy.edges import PiShape, SShape, Trapezoidal, Triangular, ZShape
from ktrdr.fuzzy.membership import MembershipFunction

__all__ = ["SHAPES", "membership", "parse_membership"]

_CLASSES: tuple[type[MembershipFunction], ...] = (
    Triangular,
    Trapezoidal,
    Gaussian,
    Bell,
    Sigmoid,
    SShape,
    ZShape,
    PiShape,
)
#: Type name -> the names of its numbers, in order.
SHAPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {shape.type: tuple(f.name for f in fields(shape)) for shape in _CLASSES}  # type: ignore[arg-type]
)
_BY_TYPE = {shape.type: shape for shape in _CLASSES}
_WORDS = {"inf": math.inf, "+inf": math.inf, ".inf": math.inf, "-inf": -math.inf, "-.inf": -math.inf}


def membership(type: str, *points: float, **params: float) -> MembershipFunction:  # noqa: A002
    """Build a membership function: ``membership("triangular", 0, 20, 35)``, ``membership("gaussian", mean=0, sigma=1)``.

    Raises
    ------
    InvalidInput
        If the type is unknown or its numbers are missing, misspelt or not a shape.
    """
    given: dict[str, object] = {"type": type, **params}
    if points:
        given["points"] = list(points)
    return parse_membership(given)


def parse_membership(value: object) -> MembershipFunction:
    """Read a membership function as strategy documents write it.

    Parameters
    ----------
    value
        ``[a, b, c]`` (triangular), ``[a, b, c, d]`` (trapezoidal), or a mapping with ``type`` and either the
        numbers by name (``{type: gaussian, mean: 0, sigma: 1}``) or ``points`` in order
        (``{type: z_shape, points: [20, 40]}``). Infinite points open a shoulder; ``"-inf"`` and ``"inf"`` are
        read as numbers.

    Raises
    ------
    InvalidInput
        With every fault found; pointers are relative to ``value`` (``/sigma``, ``/points``).
    """
    if isinstance(value, Mapping):
        return _from_mapping(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        by_length: dict[int, type[MembershipFunction]] = {3: Triangular, 4: Trapezoidal}
        shape = by_length.get(len(value))
        if shape is None:
            raise _invalid(
                FieldError(
                    "", f"give 3 points (triangular) or 4 (trapezoidal), seen {len(value)}: {list(value)}"
                )
            )
        return _build(shape, dict(zip("abcd", value, strict=False)))
    raise _invalid(FieldError("", f"give a list of 3 or 4 points or a mapping with a type, seen {value!r}"))


def _from_mapping(value: Mapping[object, object]) -> MembershipFunction:
    name = value.get("type")
    if name is None:
        raise _invalid(FieldError("/type", f"the type is missing; accepted: {', '.join(SHAPES)}"))
    shape = _BY_TYPE.get(str(name))
    if shape is None:
        hint = nearest(str(name), SHAPES)
        raise _invalid(FieldError("/type", f"unknown type '{name}'{hint} (accepted: {', '.join(SHAPES)})"))
    names = SHAPES[shape.type]
    given = {str(key): v for key, v in value.items() if key != "type"}
    if list(given) == ["points"]:
        given = _named_points(shape.type, names, given["points"])
    faults = [
        FieldError(
            f"/{key}", f"{shape.type} has no '{key}'{nearest(key, names)} (accepted: {', '.join(names)})"
        )
        for key in given
        if key not in names
    ]
    faults += [FieldError(f"/{key}", f"{shape.type} needs '{key}'") for key in names if key not in given]
    if faults:
        raise _invalid(*faults)
    return _build(shape, {key: given[key] for key in names})


def _named_points(shape: str, names: tuple[str, ...], points: object) -> dict[str, object]:
    if not isinstance(points, Sequence) or isinstance(points, str) or len(points) != len(names):
        wanted = f"{len(names)} numbers ({', '.join(names)})"
        raise _invalid(FieldError("/points", f"{shape} takes {wanted}, seen {points!r}"))
    return dict(zip(names, points, strict=True))


def _build(shape: type[MembershipFunction], numbers: Mapping[str, object]) -> MembershipFunction:
    read = {k: _WORDS.get(v.strip().lower(), v) if isinstance(v, str) else v for k, v in numbers.items()}
    return shape(**read)


def _invalid(*faults: FieldError) -> InvalidInput:
    return InvalidInput("The membership function is not valid", faults)
