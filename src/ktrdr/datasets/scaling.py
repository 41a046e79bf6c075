"""Scaling of raw inputs: fitted on training rows only, kept in the model bundle, applied by the feature function.

Shape suffixes: ``T`` = rows in time order, ``F`` = feature columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ktrdr.errors import FieldError, InvalidInput, nearest

__all__ = ["KINDS", "Kind", "Scaler"]

Kind = Literal["none", "zscore", "minmax"]
KINDS: tuple[Kind, ...] = ("none", "zscore", "minmax")


@dataclass(frozen=True, slots=True)
class Scaler:
    """``(x - shift) / scale`` per column; columns of kind ``none`` (all memberships) pass unchanged.

    Attributes
    ----------
    kinds, shift, scale
        One entry per feature column, in feature order. ``zscore``: mean and population standard deviation;
        ``minmax``: minimum and range, so that the training rows span [0, 1] and later rows may leave it. A column
        that was constant in training has scale 1.
    """

    kinds: tuple[Kind, ...]
    shift: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        faults = [
            FieldError(f"/kinds/{i}", _unknown_kind(k)) for i, k in enumerate(self.kinds) if k not in KINDS
        ]
        if not len(self.kinds) == len(self.shift) == len(self.scale):
            lengths = f"{len(self.kinds)}, {len(self.shift)} and {len(self.scale)}"
            faults.append(FieldError("", f"kinds, shift and scale must be equally long, seen {lengths}"))
        faults += [
            FieldError(f"/shift/{i}", f"must be finite, seen {v}")
            for i, v in enumerate(self.shift)
            if not math.isfinite(v)
        ]
        faults += [
            FieldError(f"/scale/{i}", f"must be finite and > 0, seen {v}")
            for i, v in enumerate(self.scale)
            if not (math.isfinite(v) and v > 0.0)
        ]
        if faults:
            raise InvalidInput("The scaler is not valid", faults)

    @classmethod
    def fit(cls, raw_TF: npt.NDArray[np.float32 | np.float64], kinds: Sequence[Kind]) -> Scaler:
        """Fit to the training rows.

        Parameters
        ----------
        raw_TF
            (T, F) unscaled features of training rows only, all finite; several symbols may be stacked.
        kinds
            F kinds, as ``FeaturePlan.kinds``.

        Raises
        ------
        InvalidInput
            If there is no row, the widths differ, or a value is NaN or infinite (drop rows that are not valid).
        """
        if raw_TF.ndim != 2 or raw_TF.shape[1] != len(kinds):
            raise InvalidInput(f"The scaler needs rows of {len(kinds)} features, seen shape {raw_TF.shape}.")
        if not len(raw_TF):
            raise InvalidInput("The scaler needs at least one training row, seen none.")
        shift, scale = [], []
        for column, kind in enumerate(kinds):
            x_T = raw_TF[:, column].astype(np.float64)
            if not np.isfinite(x_T).all():
                row = int(np.flatnonzero(~np.isfinite(x_T))[0])
                raise InvalidInput(
                    f"The scaler needs finite training rows; row {row}, column {column} is {x_T[row]}. "
                    "Drop the rows that are not valid first."
                )
            low, spread = _shift_and_scale(x_T, kind)
            shift.append(low)
            scale.append(spread)
        return cls(tuple(kinds), tuple(shift), tuple(scale))

    def apply(self, raw_TF: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Scaled copy of ``raw_TF``, (T, F) float32; the same bits as ``compute_features(..., scaler=self)``.

        Raises
        ------
        InvalidInput
            If the width differs from the one fitted.
        """
        if raw_TF.ndim != 2 or raw_TF.shape[1] != len(self.kinds):
            raise InvalidInput(
                f"The scaler was fitted to {len(self.kinds)} features, seen shape {raw_TF.shape}. "
                "Use the model with the strategy it was trained with."
            )
        scaled_TF = np.array(raw_TF, dtype=np.float32)
        for column, kind in enumerate(self.kinds):
            if kind != "none":
                scaled_TF[:, column] = self.apply_column(column, scaled_TF[:, column])
        return scaled_TF

    def apply_column(self, column: int, x_T: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """One column scaled, (T,) float32; computed in float64 from the float32 value."""
        wide_T = x_T.astype(np.float64)
        return ((wide_T - self.shift[column]) / self.scale[column]).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """``{"kinds": [...], "shift": [...], "scale": [...]}``; exact under a JSON round trip."""
        return {"kinds": list(self.kinds), "shift": list(self.shift), "scale": list(self.scale)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scaler:
        """The scaler written by :meth:`to_json`.

        Raises
        ------
        InvalidInput
            If a key is missing or a value is not what it should be.
        """
        missing = [key for key in ("kinds", "shift", "scale") if key not in value]
        if missing:
            raise InvalidInput(
                "The scaler is not valid", [FieldError(f"/{key}", "is missing") for key in missing]
            )
        try:
            shift, scale = (tuple(float(v) for v in value[key]) for key in ("shift", "scale"))
            return cls(tuple(value["kinds"]), shift, scale)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"The scaler is not valid: {error}.") from None


def _shift_and_scale(x_T: npt.NDArray[np.float64], kind: Kind) -> tuple[float, float]:
    match kind:
        case "zscore":
            shift, scale = float(x_T.mean()), float(x_T.std())
            # the deviation of equal values is a rounding error, not a scale
            scale = 0.0 if x_T.min() == x_T.max() else scale
        case "minmax":
            shift, scale = float(x_T.min()), float(x_T.max() - x_T.min())
        case _:
            return 0.0, 1.0
    return shift, scale if scale > 0.0 else 1.0


def _unknown_kind(kind: object) -> str:
    return f"'{kind}' is no normalization{nearest(str(kind), KINDS)} (accepted: {', '.join(KINDS)})"
