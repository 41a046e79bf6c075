"""One setting for every test: examples are searched at random by hand and fixed in continuous integration."""

from __future__ import annotations

import os

from hypothesis import settings

# A red build must be about the change that it builds; new examples are found on developers' machines.
settings.register_profile("ci", derandomize=True, print_blob=True)
settings.register_profile("search", print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "search")
