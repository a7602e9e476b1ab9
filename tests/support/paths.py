"""Folders that tests read."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
EXAMPLES = PROJECT / "jobs" / "examples"
EXEMPLARS = EXAMPLES / "exemplars"
PAPER = Path(os.environ.get("CORRECTOR_PAPER_IMAGES", PROJECT.parent / "shared" / "paper"))
"""Images that the paper's author released. Tests that read them are skipped where the folder is missing."""
