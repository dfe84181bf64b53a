"""The report as one HTML page that needs nothing but a browser (docs/report.md).

page.py      the page: template, style, charts and data in one file, and its security policy
figures.py   what the charts draw
tables.py    what the tables say: everything the charts show can be read without them
assets/      template, style sheet, and the charts' script (from `web/report/`, by `make charts`)
"""

from graph_ops.report_page.page import CONTENT_SECURITY_POLICY, PAGE_DIGEST, render_report

__all__ = ["CONTENT_SECURITY_POLICY", "PAGE_DIGEST", "render_report"]
