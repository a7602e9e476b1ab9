"""The HTML report of a run: what was wrong, what the correction made of it, and the gate's verdict.

`write_report` makes the page; `python -m corrector.report RUN_FOLDER` makes it again from a run's folder.
"""

from corrector.report.page import write_report
from corrector.report.run_folder import read_run

__all__ = ["read_run", "write_report"]
