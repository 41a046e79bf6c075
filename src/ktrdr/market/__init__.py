"""Market data: datasets by content, import with proof, calendars, resampling, alignment, bundled samples.

Exchange calendars (and pandas with them) are loaded on first need only.
"""

from ktrdr.market.align import align_to
from ktrdr.market.calendars import bars_per_year, known_at
from ktrdr.market.importer import Imported, ImportReport, Policy, import_file
from ktrdr.market.manifest import DatasetManifest, Segment, dataset_artifacts, load_dataset, read_manifest
from ktrdr.market.resample import can_resample, resample
from ktrdr.market.samples import install_samples, load_sample, sample_list
from ktrdr.market.store import MarketStore
from ktrdr.market.symbols import check_symbol

__all__ = [
    "DatasetManifest",
    "ImportReport",
    "Imported",
    "MarketStore",
    "Policy",
    "Segment",
    "align_to",
    "bars_per_year",
    "can_resample",
    "check_symbol",
    "dataset_artifacts",
    "import_file",
    "install_samples",
    "known_at",
    "load_dataset",
    "load_sample",
    "read_manifest",
    "resample",
    "sample_list",
]
