"""What a conversion changed and what it costs, as records and as Markdown."""

from spdify.reporting.inspection import Inspection, make_inspection
from spdify.reporting.markdown import report_markdown
from spdify.reporting.measuring import compare_models, make_report, measure
from spdify.reporting.pages import report_files, report_page

__all__ = [
    "Inspection",
    "compare_models",
    "make_inspection",
    "make_report",
    "measure",
    "report_files",
    "report_markdown",
    "report_page",
]
