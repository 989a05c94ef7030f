"""The report: run directories in, one self-contained HTML page and its figures out."""

from fedrobust.report.page import write_report
from fedrobust.report.run_records import ReportRun

__all__ = ["ReportRun", "write_report"]
