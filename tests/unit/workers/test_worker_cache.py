"""The cache stays below its size; what is needed stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ktrdr.artifacts import FileArtifactStore
from ktrdr.workers.cache import trim_cache


def filled(root: Path, ages_h: list[int]) -> tuple[FileArtifactStore, list[str]]:
    cache, digests = FileArtifactStore(root), []
    for age_h in ages_h:
        digests.append(cache.put(bytes([age_h]) * 100))
        then = time.time() - 3600 * age_h
        os.utime(cache.location(digests[-1]), (then, then))
    return cache, digests


def test_the_longest_unused_go_first(tmp_path: Path) -> None:
    cache, (old, older, new) = filled(tmp_path, [5, 9, 2])
    assert trim_cache(cache, 250, set()) == 1
    assert set(cache.digests()) == {old, new}
    assert trim_cache(cache, 250, set()) == 0
    assert older not in set(cache.digests())


def test_results_on_their_way_and_recent_files_stay(tmp_path: Path) -> None:
    cache, (undelivered, fresh, _) = filled(tmp_path, [9, 0, 5])
    assert trim_cache(cache, 0, {undelivered}) == 1
    assert set(cache.digests()) == {undelivered, fresh}
