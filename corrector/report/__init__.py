"""The HTML report of a run: images before and after the correction, figures, and the gate's verdict.

`write_report` writes the report of a run, `write_search_report` that of a search. `python -m corrector.report RUN_FOLDER`
writes the first again from a run's folder.
"""

from typing import TYPE_CHECKING

from corrector.lazy_names import lazy_names

if TYPE_CHECKING:
    from corrector.report.page import write_report
    from corrector.report.run_folder import read_run
    from corrector.report.search_page import write_search_report

__all__ = ["read_run", "write_report", "write_search_report"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "page": ("write_report",),
        "run_folder": ("read_run",),
        "search_page": ("write_search_report",),
    },
)
