"""The page around figures and tables.

Everything is in the file: it opens from a disk, a mail or an archive without a network. Names come
from a model that someone sent: the template escapes them, the script only writes them as text, and
the policy in the page runs no script but the one whose digest it names.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from graph_ops.report_page.figures import figures_of
from graph_ops.report_page.tables import as_count, as_number, as_percent, page_tables
from graph_ops.version import VERSION

ASSETS: Final = Path(__file__).parent / "assets"
STYLE: Final = (ASSETS / "report.css").read_text(encoding="utf-8")
SCRIPT: Final = (ASSETS / "charts.js").read_text(encoding="utf-8")

PLOT_STYLE: Final = "'sha256-+TfQir1nvDucAdvE6XUQBt4ayUjpAWkbw2kCdSfekHM='"
"""The few rules that Observable Plot puts into each chart; they are the same in all of them."""


def _source(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


CONTENT_SECURITY_POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        f"script-src {_source(SCRIPT)}",
        f"style-src {_source(STYLE)} {PLOT_STYLE}",
        "base-uri 'none'",
        "form-action 'none'",
    ]
)
"""What the page may do: run its own script, use its own style sheet, and load nothing."""


PAGE_DIGEST: Final = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(ASSETS.iterdir())) + VERSION.encode()
).hexdigest()
"""Says whether two pages of one report are the same."""


def render_report(report: dict[str, Any], title: str = "") -> str:
    """The page of a report.

    Args:
        report: As `PruneResult.report` has it, or its JSON read back.
        title: What the model is called, its file name for instance.
    """
    return _template().render(
        title=title or f"model {report['model']['sha256'][:12]}",
        report=report,
        policy=CONTENT_SECURITY_POLICY,
        style=STYLE,
        script=SCRIPT,
        figures=_json_for_html(figures_of(report)),
        **page_tables(report),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": as_number, "percent": as_percent, "count": as_count}
    return environment.get_template("report.html")


def _json_for_html(value: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
