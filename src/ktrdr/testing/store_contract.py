"""The laws of :class:`ktrdr.operations.store.OperationStore` as tests that every implementation inherits."""

from __future__ import annotations

from ktrdr.testing.store_changes import ChangeLaws
from ktrdr.testing.store_keeping import KeepingLaws
from ktrdr.testing.store_reading import ReadingLaws

__all__ = ["OperationStoreContract"]


class OperationStoreContract(ChangeLaws, ReadingLaws, KeepingLaws):
    """Inherit and provide the fixture ``store``: an async fixture that yields an empty store and closes it."""
