"""The run page: a self-contained HTML file about one run, or a comparison of several."""

from flows.pages.run.page import write_report
from flows.pages.run.summary import summary_table

__all__ = ["summary_table", "write_report"]
