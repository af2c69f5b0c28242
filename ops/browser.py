"""Where a Chromium is, for the dashboard's tests, pictures and bench; users bring their own."""

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def find() -> str | None:
    """The one that MMZERO_CHROMIUM names, or one on the path; None where there is none."""
    named = os.environ.get("MMZERO_CHROMIUM")
    if named:
        return named if os.access(named, os.X_OK) else None
    return next((found for name in NAMES if (found := shutil.which(name))), None)
