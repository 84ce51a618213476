"""Whether this is the run that takes its time."""

import os

__all__ = ["IS_NIGHTLY"]

IS_NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
