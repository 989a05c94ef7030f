"""Make one self-contained HTML page and its figures from run directories."""

from fedrobust.report.page import write_report
from fedrobust.report.run_records import ReportRun

__all__ = ["ReportRun", "write_report"]
