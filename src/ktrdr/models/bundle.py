"""A trained model as stored: ``bundle.json`` tells everything and names the files ``model.onnx`` and ``weights.safetensors``.

All three are artifacts, named by the SHA-256 of their bytes; the digest of ``bundle.json`` is the model's identity.
It holds no time, no machine and no path: the same data, strategy and seed give the same digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError

from ktrdr.artifacts import ArtifactStore
from ktrdr.errors import FieldError, InvalidModel
from ktrdr.models.architecture import CLASSES, MlpArchitecture

__all__ = [
    "MODEL_FILE",
    "WEIGHTS_FILE",
    "Bundle",
    "BundleManifest",
    "DatasetUse",
    "FeatureIdentity",
    "JsonValue",
    "TrainingRecord",
    "export_bundle",
    "load_bundle",
    "refuse_pickle",
    "save_bundle",
]

MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "weights.safetensors"

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

_PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".joblib", ".ckpt")
_PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FeatureIdentity(_Part):
    """Which features the network reads, in which order, and how they were computed.

    ``origin`` is the rule for the first bar that recursive indicators see: ``dataset_start`` = the first stored bar,
    whatever range is asked for. ``warmup_bars`` are the base bars before the first valid row at training.
    """

    names: tuple[str, ...] = Field(min_length=1)
    digest: str
    origin: Literal["dataset_start"] = "dataset_start"
    warmup_bars: int = Field(ge=0)


class DatasetUse(_Part):
    """Bars the model was trained on: their digest (:meth:`ktrdr.bars.Bars.digest`) and range."""

    symbol: str
    timeframe: str
    digest: str
    start: str
    end: str
    rows: int


class TrainingRecord(_Part):
    """How the weights came to be. ``start_date`` and ``end_date`` bound the rows that were labelled, both included."""

    symbols: tuple[str, ...]
    timeframes: tuple[str, ...]
    base_timeframe: str
    start_date: str | None
    end_date: str | None
    datasets: tuple[DatasetUse, ...]
    seed: int
    device: str
    threads: int
    metrics: dict[str, JsonValue]
    history: tuple[dict[str, JsonValue], ...]


class BundleManifest(_Part):
    """The content of ``bundle.json``."""

    format: Literal["ktrdr-bundle"] = "ktrdr-bundle"
    format_version: Literal[1] = 1
    strategy_name: str
    strategy: str = Field(description="the whole strategy document, YAML")
    architecture: MlpArchitecture
    features: FeatureIdentity
    scaler: JsonValue = None
    classes: tuple[str, ...] = CLASSES
    training: TrainingRecord
    code_version: str
    files: dict[str, Digest] = Field(description="member files and their SHA-256")

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no blanks; equal manifests give equal bytes."""
        data = self.model_dump(mode="json")
        text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model in an artifact store. ``digest`` is the SHA-256 of ``bundle.json``."""

    manifest: BundleManifest
    digest: str
    artifacts: ArtifactStore

    def model_path(self) -> Path:
        """The verified ``model.onnx``; a worker fetches it here, and only here."""
        return self.artifacts.path(self.manifest.files[MODEL_FILE])

    def weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """Parameters by name from ``weights.safetensors`` (needs the ``training`` extra)."""
        from safetensors.numpy import load  # lazy: asking a model does not need it

        return dict(load(self.artifacts.read(self.manifest.files[WEIGHTS_FILE])))


def save_bundle(
    artifacts: ArtifactStore,
    manifest: BundleManifest,
    *,
    model: bytes,
    weights: Mapping[str, npt.NDArray[np.float32]],
) -> Bundle:
    """Store the two files, then ``bundle.json`` with their digests; ``manifest.files`` is filled in here.

    A stored ``bundle.json`` therefore never names a file that was not stored before it.
    """
    from safetensors.numpy import save  # lazy: only training stores bundles

    files = {
        MODEL_FILE: artifacts.put(model),
        WEIGHTS_FILE: artifacts.put(save({name: np.ascontiguousarray(w) for name, w in weights.items()})),
    }
    complete = manifest.model_copy(update={"files": files})
    return Bundle(complete, artifacts.put(complete.to_bytes()), artifacts)


def load_bundle(artifacts: ArtifactStore, digest: str) -> Bundle:
    """Read and check a bundle. The member files are fetched and verified when they are used.

    Raises
    ------
    NotFound
        If there is no such artifact.
    CorruptArtifact
        If its bytes do not match the digest.
    InvalidModel
        If it is not a bundle; a pickle is named as such and is never opened.
    """
    content = artifacts.read(digest)
    if content.startswith(_PICKLE_STARTS):
        raise InvalidModel(_pickle_message(f"Artifact {digest[:12]}"))
    try:
        manifest = BundleManifest.model_validate_json(content)
    except ValidationError as error:
        faults = [FieldError("/" + "/".join(map(str, e["loc"])), e["msg"]) for e in error.errors()]
        raise InvalidModel(
            f"Artifact {digest[:12]} is not a model bundle (a bundle.json of format_version 1)", faults
        ) from None
    missing = [name for name in (MODEL_FILE, WEIGHTS_FILE) if name not in manifest.files]
    if missing:
        raise InvalidModel(f"The bundle {digest[:12]} names no {' and no '.join(missing)}.")
    return Bundle(manifest, digest, artifacts)


def export_bundle(bundle: Bundle, folder: Path) -> Path:
    """Write ``bundle.json`` and its member files under their names into ``folder`` (made if absent)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, digest in bundle.manifest.files.items():
        (folder / PurePath(name).name).write_bytes(bundle.artifacts.read(digest))
    (folder / "bundle.json").write_bytes(bundle.manifest.to_bytes())
    return folder


def refuse_pickle(reference: str) -> None:
    """Refuse a model named by a pickled file.

    Raises
    ------
    InvalidModel
        If ``reference`` ends in .pt, .pth, .pkl, .pickle, .joblib or .ckpt; the message says how to get a bundle.
    """
    if reference.lower().endswith(_PICKLE_SUFFIXES):
        raise InvalidModel(_pickle_message(f"'{reference}'"))


def _pickle_message(what: str) -> str:
    return (
        f"{what} is a pickled model, which can run any code when it is opened; ktrdr never opens one. "
        "Train a bundle instead: ktrdr models train --strategy NAME, "
        "then use the model id that it prints (ktrdr models list shows all)."
    )
