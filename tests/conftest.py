"""Settings of the property tests: no deadline, and the same examples every time in CI."""

import os

from hypothesis import settings

settings.register_profile("refimpl", deadline=None, max_examples=25, derandomize="CI" in os.environ)
settings.load_profile("refimpl")
