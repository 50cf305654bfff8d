"""The report page: one self-contained HTML file about a run, or a comparison of several."""

from flows.report.data import summary_table
from flows.report.page import write_report

__all__ = ["summary_table", "write_report"]
