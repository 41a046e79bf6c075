"""Bundles: stored whole, verified when read, and never a pickle."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from ktrdr.artifacts import FileArtifactStore, sha256_of
from ktrdr.errors import CorruptArtifact, InvalidModel, NotFound
from ktrdr.models.architecture import MlpArchitecture
from ktrdr.models.bundle import (
    BundleManifest,
    DatasetUse,
    FeatureIdentity,
    TrainingRecord,
    export_bundle,
    load_bundle,
    refuse_pickle,
    save_bundle,
)
from ktrdr.models.inference import Classifier
from ktrdr.models.onnx_graph import build_onnx

ARCHITECTURE = MlpArchitecture(inputs=2, hidden_layers=(3,))
WEIGHTS = {
    name: np.random.default_rng(1).normal(size=shape).astype(np.float32)
    for name, shape in ARCHITECTURE.parameter_shapes().items()
}
MODEL = build_onnx(ARCHITECTURE, WEIGHTS)


def manifest(**changes: object) -> BundleManifest:
    use = DatasetUse(
        symbol="SP500", timeframe="1d", digest="d" * 64, start="2000-01-03", end="2010-12-31", rows=2767
    )
    record = TrainingRecord(
        symbols=("SP500",),
        timeframes=("1d",),
        base_timeframe="1d",
        start_date=None,
        end_date="2010-12-31",
        datasets=(use,),
        seed=7,
        device="cpu",
        threads=1,
        metrics={"val_loss": 0.5, "recall": {"BUY": None}},
        history=({"epoch": 1, "val_loss": 0.5},),
    )
    values = {
        "strategy_name": "trend",
        "strategy": "name: trend\n",
        "architecture": ARCHITECTURE,
        "features": FeatureIdentity(names=("1d_a_low", "1d_a_high"), digest="abc", warmup_bars=14),
        "scaler": {"mean": [0.25]},
        "training": record,
        "code_version": "0.1.0",
        "files": {},
    }
    return BundleManifest(**(values | changes))


@pytest.fixture
def store(tmp_path: Path) -> FileArtifactStore:
    return FileArtifactStore(tmp_path / "artifacts")


def test_what_is_saved_can_be_loaded_and_asked(store: FileArtifactStore) -> None:
    saved = save_bundle(store, manifest(), model=MODEL, weights=WEIGHTS)
    loaded = load_bundle(store, saved.digest)
    assert loaded.manifest == saved.manifest
    assert loaded.manifest.features.names == ("1d_a_low", "1d_a_high")
    assert Classifier(loaded.model_path()).features == 2
    assert all(np.array_equal(loaded.weights()[name], value) for name, value in WEIGHTS.items())


def test_equal_contents_have_equal_digests_and_other_contents_others(store: FileArtifactStore) -> None:
    one = save_bundle(store, manifest(), model=MODEL, weights=WEIGHTS).digest
    again = save_bundle(store, manifest(), model=MODEL, weights=dict(reversed(WEIGHTS.items()))).digest
    assert one == again
    assert save_bundle(store, manifest(strategy="name: x\n"), model=MODEL, weights=WEIGHTS).digest != one
    other = {name: value + 1 for name, value in WEIGHTS.items()}
    assert save_bundle(store, manifest(), model=MODEL, weights=other).digest != one


def test_the_document_is_canonical_json_and_names_its_files(store: FileArtifactStore) -> None:
    saved = save_bundle(store, manifest(), model=MODEL, weights=WEIGHTS)
    content = store.read(saved.digest)
    document = json.loads(content)
    assert content == json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert document["files"]["model.onnx"] == sha256_of(MODEL)
    assert document["classes"] == ["BUY", "HOLD", "SELL"]
    assert document["features"]["origin"] == "dataset_start"


def test_a_damaged_member_is_never_used(store: FileArtifactStore) -> None:
    bundle = save_bundle(store, manifest(), model=MODEL, weights=WEIGHTS)
    store.location(bundle.manifest.files["model.onnx"]).write_bytes(MODEL + b" ")
    with pytest.raises(CorruptArtifact):
        bundle.model_path()


def test_an_absent_bundle_is_not_found(store: FileArtifactStore) -> None:
    with pytest.raises(NotFound):
        load_bundle(store, "0" * 64)


@pytest.mark.parametrize(
    "content", [b"{}", b"no json", b'{"format": "ktrdr-bundle", "format_version": 2}', b"[1]"]
)
def test_other_documents_are_refused(store: FileArtifactStore, content: bytes) -> None:
    with pytest.raises(InvalidModel, match="is not a model bundle") as caught:
        load_bundle(store, store.put(content))
    assert caught.value.errors


def test_unknown_keys_are_named(store: FileArtifactStore) -> None:
    saved = save_bundle(store, manifest(), model=MODEL, weights=WEIGHTS)
    document = json.loads(store.read(saved.digest)) | {"flavour": "sweet"}
    with pytest.raises(InvalidModel, match="/flavour"):
        load_bundle(store, store.put(json.dumps(document).encode()))


def test_a_bundle_without_its_files_is_refused(store: FileArtifactStore) -> None:
    digest = store.put(manifest(files={"model.onnx": "a" * 64}).to_bytes())
    with pytest.raises(InvalidModel, match=r"names no weights\.safetensors"):
        load_bundle(store, digest)


class _Explodes:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("the pickle was opened",))


@pytest.mark.parametrize("content", [pickle.dumps(_Explodes()), b"PK\x03\x04archive/data.pkl"])
def test_a_pickle_is_named_and_never_opened(store: FileArtifactStore, content: bytes) -> None:
    with pytest.raises(InvalidModel, match=r"never opens one\. Train a bundle instead"):
        load_bundle(store, store.put(content))


@pytest.mark.parametrize("name", ["model.pt", "a/b/MODEL.PTH", "m.pkl", "m.joblib"])
def test_a_pickled_files_name_is_refused_with_the_way_out(name: str) -> None:
    with pytest.raises(InvalidModel, match="ktrdr models train") as caught:
        refuse_pickle(name)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["sp500_trend-3f2a", "pickles", "model.onnx", "a.pt.onnx"])
def test_other_names_are_let_through(name: str) -> None:
    refuse_pickle(name)


def test_export_writes_the_three_files(store: FileArtifactStore, tmp_path: Path) -> None:
    bundle = save_bundle(store, manifest(), model=MODEL, weights=WEIGHTS)
    folder = export_bundle(bundle, tmp_path / "out")
    assert sorted(f.name for f in folder.iterdir()) == ["bundle.json", "model.onnx", "weights.safetensors"]
    assert sha256_of((folder / "bundle.json").read_bytes()) == bundle.digest
    assert (folder / "model.onnx").read_bytes() == MODEL
