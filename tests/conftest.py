"""Settings of the whole test suite."""

from __future__ import annotations

import os

from hypothesis import settings

# Machines differ in speed, so no example has a deadline; on CI the same examples are tried each time.
settings.register_profile("everywhere", deadline=None)
settings.register_profile("ci", parent=settings.get_profile("everywhere"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "everywhere")
