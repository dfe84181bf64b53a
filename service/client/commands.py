"""`onnx-filter-pruner`: the library's commands, and those that send work to a service.

`graph_ops` knows nothing of a service, so the program's entry point is here, and adds to the
library's own commands.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from graph_ops.cli import app, display
from graph_ops.cli.exits import exit_on_error
from graph_ops.cli.flags import with_option_flags
from graph_ops.errors import OptionsError
from graph_ops.options import PruneOptions
from graph_ops.pruning import Progress
from service.client.client import API_KEY_VARIABLE, DEFAULT_URL, URL_VARIABLE, Client, RemoteJob
from service.client.errors import ClientError
from service.client.transfers import OnBytes

SERVICE_FAILED = 9
"""Exit status when the service refuses, does not answer, or the job failed there."""

_PANEL = "Service"

Url = Annotated[
    str, typer.Option(envvar=URL_VARIABLE, help="Where the service is.", rich_help_panel=_PANEL)
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar=API_KEY_VARIABLE,
        show_envvar=True,
        help="API key; the variable keeps it out of the list of processes.",
        rich_help_panel=_PANEL,
    ),
]
JobIdArgument = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Wait, and put the pruned model here.")
]


class ResultName(StrEnum):
    """Results of a job."""

    MODEL = "model"
    REPORT = "report"
    SCORES = "scores"


def main() -> None:
    """Entry point of the console script."""
    app()


@app.command()
@with_option_flags
def submit(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="`.onnx`, or a `.zip`.")],
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Calibration data.")],
    out: Out = None,
    job_id: Annotated[
        str | None, typer.Option("--id", help="Id of the job; the same again is the same job.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", help="KEY=VALUE to find the job by; may be repeated."),
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    quiet: Quiet = False,
    *,
    read_options: Callable[[], PruneOptions],
) -> None:
    """Send a model and a bundle to a service, and print the job's id."""
    with exit_on_error(), _exit_on_problem(), Client(url, api_key) as client:
        options = read_options().model_dump(mode="json", exclude_unset=True)
        with _byte_bars(quiet) as bar:
            job = client.submit(
                model, bundle, options, _pairs(metadata or []), job_id=job_id, on_bytes=bar
            )
        display.print_line(job.id)
        if out is not None:
            _wait(client, job.id, quiet)
            _download(client, job.id, ResultName.MODEL, out, quiet)


@app.command()
def status(
    job_id: Annotated[
        str | None, typer.Argument(metavar="[JOB]", help="Id of a job; all when not given.")
    ] = None,
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    label: Annotated[str | None, typer.Option(help="Only jobs with this KEY=VALUE.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Say how a job stands, or list them all."""
    with exit_on_error(), _exit_on_problem(), Client(url, api_key) as client:
        if job_id is not None:
            found = [client.job(job_id)]
        else:
            filters = {"state": state, "label": label}
            found = list(client.jobs(**{k: v for k, v in filters.items() if v is not None}))
    if as_json:
        documents = [dict(job.document) for job in found]
        display.print_json(documents if job_id is None else documents[0])
        return
    for job in found:
        display.print_line(_line(job))


@app.command()
def wait(
    job_id: JobIdArgument,
    out: Out = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    quiet: Quiet = False,
) -> None:
    """Wait for a job's end, with its progress; fail when it failed."""
    with exit_on_error(), _exit_on_problem(), Client(url, api_key) as client:
        job = _wait(client, job_id, quiet)
        if out is not None:
            _download(client, job_id, ResultName.MODEL, out, quiet)
    display.print_line(_line(job))


@app.command()
def download(
    job_id: JobIdArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the file goes.")],
    result: Annotated[ResultName, typer.Option(help="Which result.")] = ResultName.MODEL,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    quiet: Quiet = False,
) -> None:
    """Fetch a result of a job; a download that was cut short goes on."""
    with exit_on_error(), _exit_on_problem(), Client(url, api_key) as client:
        _download(client, job_id, result, out, quiet)
    display.print_line(f"wrote {out}")


@app.command()
def cancel(job_id: JobIdArgument, url: Url = DEFAULT_URL, api_key: ApiKey = None) -> None:
    """Stop a job."""
    with exit_on_error(), _exit_on_problem(), Client(url, api_key) as client:
        display.print_line(_line(client.cancel(job_id)))


def _wait(client: Client, job_id: str, is_quiet: bool) -> RemoteJob:
    with display.progress_bars(is_quiet=is_quiet) as show:

        def on_progress(data: Mapping[str, Any]) -> None:
            show(Progress(data["phase"], data["done"], data["total"], data["message"]))

        return client.wait(job_id, on_progress)


def _download(client: Client, job_id: str, name: ResultName, out: Path, is_quiet: bool) -> None:
    with _byte_bars(is_quiet) as bar:
        client.download(job_id, name, out, bar(name))


@contextmanager
def _byte_bars(is_quiet: bool) -> Iterator[Callable[[str], OnBytes]]:
    """Makes one bar per file; nothing is drawn when stderr is not a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    hidden = is_quiet or not console.is_terminal
    with Bars(*columns, TransferSpeedColumn(), console=console, disable=hidden) as bars:

        def bar(name: str) -> OnBytes:
            task = bars.add_task(name, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield bar


@contextmanager
def _exit_on_problem() -> Iterator[None]:
    """Turn what the service says into a message like the library's, and an exit status."""
    try:
        yield
    except ClientError as error:
        print(f"error[{error.code}]: {error.detail}", file=sys.stderr)
        for name, value in error.members.items():
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            print(f"  {name}: {text[:400]}", file=sys.stderr)
        raise typer.Exit(SERVICE_FAILED) from None


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise OptionsError(f"--metadata: {text!r} is not KEY=VALUE.", field="metadata")
        pairs[key] = value
    return pairs


def _line(job: RemoteJob) -> str:
    parts = [job.id, job.state]
    if job.problem is not None:
        parts.append(str(job.problem["code"]))
    elif job.progress is not None and not job.is_over:
        progress = job.progress
        parts.append(f"{progress['phase']} {progress['done']}/{progress['total']}")
    return "  ".join(parts)
