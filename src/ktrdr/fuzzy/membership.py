"""What every membership function is: a frozen shape that grades numbers from 0 to 1.

Shape suffixes: ``T`` = values in time order, ``S`` = sets of a linguistic variable.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ktrdr.bars import FloatArray
from ktrdr.errors import FieldError, InvalidInput

__all__ = ["NEGLIGIBLE", "MembershipFunction"]

#: Shapes that never reach 0 count as absent below this grade; see :attr:`MembershipFunction.support`.
NEGLIGIBLE = 0.01

_BLOCK = 8_192  # values whose temporaries stay in the processor's cache


class MembershipFunction(ABC):
    """Degree of belonging to a fuzzy set.

    Laws, tested for every shape:

    - grades lie in [0, 1]; NaN gives NaN; no other input does;
    - the grade of a value does not depend on its neighbours: any slice of the input gives the same bits;
    - ``parse_membership(mf.to_json()) == mf``.

    Subclasses are frozen dataclasses whose fields are their numbers, in the order of the field's literature.
    """

    type: ClassVar[str]

    @property
    @abstractmethod
    def support(self) -> tuple[float, float]:
        """Ends of the interval outside which the grade is 0 (below 0.01 for shapes that never reach 0)."""

    @abstractmethod
    def fill(self, x_T: FloatArray, out_T: FloatArray) -> None:
        """Write the grades of ``x_T`` into ``out_T``; both (T,), contiguous, float64, and not the same memory."""

    def __call__(self, x_T: npt.ArrayLike) -> FloatArray:
        """Grades of ``x_T``, any shape, float64 in [0, 1]; NaN where ``x_T`` is NaN."""
        x = np.ascontiguousarray(x_T, dtype=np.float64)
        flat = x.reshape(-1)
        out = np.empty_like(flat)
        with np.errstate(over="ignore", under="ignore"):
            for first in range(0, len(flat), _BLOCK):
                self.fill(flat[first : first + _BLOCK], out[first : first + _BLOCK])
        return out.reshape(np.shape(x_T))

    def to_json(self) -> dict[str, Any]:
        """``{"type": ..., <number's name>: ...}``; infinities as the words ``inf`` and ``-inf``."""
        numbers = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {"type": self.type} | {k: v if math.isfinite(v) else str(v) for k, v in numbers.items()}

    def _read_numbers(self) -> list[FieldError]:
        """Turn the fields into floats; the faults of those that are none."""
        faults = []
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
                faults.append(FieldError(f"/{f.name}", f"'{value}' is not a number"))
            elif math.isnan(value):
                faults.append(FieldError(f"/{f.name}", "nan is not a number"))
            else:
                object.__setattr__(self, f.name, float(value))
        return faults

    def _refuse(self, faults: Sequence[FieldError]) -> None:
        if faults:
            raise InvalidInput(f"The {self.type} membership function is not valid", faults)
