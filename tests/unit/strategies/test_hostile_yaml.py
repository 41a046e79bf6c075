"""Hostile YAML: each document is refused, in words, in bounded time and memory, and constructs nothing."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest

from ktrdr.errors import InvalidStrategy
from ktrdr.strategies import StrategyLibrary, example_root, parse_strategy, read_strategy_file
from support.hostile_yaml import hostile_documents

VALID = (example_root() / "sp500_trend.yaml").read_text()
DOCUMENTS = hostile_documents(VALID)
_SECONDS, _MEGABYTES = 10, 300


# what the refusal must be for, so that a document is not refused for something harmless in it alone
_WHY = (
    ("tag ", r"the tag '"),
    ("billion laughs", r"the anchor '"),
    ("a merge key without an alias", r"<<|must|unknown"),
    ("a merge", r"the anchor '"),
    ("an alias", r"the anchor '|the alias '"),
    ("many anchors", r"the anchor '"),
    ("deep lists 1", r"nesting deeper than 32"),
    ("deep mappings", r"nesting deeper than 32"),
    ("too large", r"bytes; at most"),
    ("many values", r"more than 20,000 values"),
    ("a duplicate key", r"twice|duplicate"),
    ("surrogate", r"half a character|not YAML"),
)


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name.startswith(tuple(n for n, _ in _WHY))])
def test_it_is_refused_for_what_is_hostile_in_it(name: str) -> None:
    pattern = next(why for start, why in _WHY if name.startswith(start))
    with pytest.raises(InvalidStrategy, match=pattern):
        parse_strategy(DOCUMENTS[name])


def test_there_are_many_and_each_is_another() -> None:
    assert len(DOCUMENTS) >= 150
    assert len(set(DOCUMENTS.values())) >= 150
    assert parse_strategy(VALID).name == "sp500_trend"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_hostile_document_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(InvalidStrategy) as caught:
        parse_strategy(DOCUMENTS[name])
    assert time.process_time() - began < _SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < _MEGABYTES
    assert caught.value.message
    assert len(str(caught.value)) < 1_000_000
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "shift_jis"])
def test_files_of_other_encodings_are_refused(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "sp500_trend.yaml"
    path.write_bytes(
        VALID.replace("description:", "description: \u00e9\u00fc", 1).encode(encoding, "replace")
    )
    if encoding == "shift_jis":
        path.write_bytes(VALID.encode() + "# \u65e5\u672c".encode(encoding))
    with pytest.raises(InvalidStrategy):
        read_strategy_file(path)
    with pytest.raises(InvalidStrategy):
        StrategyLibrary([tmp_path]).get("sp500_trend")
