"""`python -m service keys ...`: API keys, made and revoked by who can reach the database.

    python -m service keys create ci --scope submit
    python -m service keys list
    python -m service keys revoke ci

They work on the database of `DATABASE_URL` and `DATA_DIR`, whether or not a server runs. A running
server notices within a second.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import sqlalchemy as sa
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from service.database import Database
from service.keys import KeyNameError, KeyStore, Scope
from service.settings import Settings, explain

app = typer.Typer(
    help="Runs the server, with settings from the environment (docs/settings.md).",
    add_completion=False,
    pretty_exceptions_enable=False,
)
keys_app = typer.Typer(help="API keys.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")


@app.callback()
def _root() -> None:
    """Without a command: run the server until SIGTERM or SIGINT."""


@keys_app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is called.")],
    scope: Annotated[
        Scope, typer.Option(help="What it may do; each scope includes those before it.")
    ] = Scope.SUBMIT,
    owner: Annotated[
        str | None,
        typer.Option(help="Whose models, bundles and jobs it works on; the name when not given."),
    ] = None,
    max_requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="In place of MAX_REQUESTS_PER_MINUTE.")
    ] = None,
    max_jobs: Annotated[int | None, typer.Option(min=1, help="In place of MAX_JOBS_PER_KEY.")] = (
        None
    ),
) -> None:
    """Make a key and print it. It is shown this once and kept nowhere."""
    with _key_store() as keys:
        key, token = keys.create(name, scope, owner, max_requests_per_minute, max_jobs)
    print(
        f"{key.scope} key {key.name} of {key.owner}; keep it, it is not kept here:", file=sys.stderr
    )
    print(token)


@keys_app.command(name="list")
def list_keys() -> None:
    """Every key, revoked ones too."""
    with _key_store() as keys:
        found = keys.all()
    table = Table()
    for column in ("id", "name", "owner", "scope", "requests/min", "jobs", "created", "revoked"):
        table.add_column(column, no_wrap=column in ("id", "name"), overflow="fold")
    for key in found:
        limits = (key.max_requests_per_minute, key.max_jobs)
        texts = ["" if limit is None else str(limit) for limit in limits]
        table.add_row(
            *(key.id, key.name, key.owner, key.scope),
            *(*texts, key.created_at[:10], (key.revoked_at or "")[:10]),
        )
    Console(markup=False, emoji=False, highlight=False).print(table)


@keys_app.command()
def revoke(name: Annotated[str, typer.Argument(help="Name or id of the key.")]) -> None:
    """Make a key worthless; running servers refuse it a second later."""
    with _key_store() as keys:
        key = keys.revoke(name)
    print(f"revoked {key.name} ({key.id})", file=sys.stderr)


@contextmanager
def _key_store() -> Iterator[KeyStore]:
    try:
        database = Database(Settings().database)
    except ValidationError as error:
        print(*explain(error), sep="\n", file=sys.stderr)
        raise typer.Exit(2) from None
    try:
        database.create()
        yield KeyStore(database)
    except KeyNameError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None
    except sa.exc.OperationalError as error:
        print(f"The database does not answer: {error.orig}.", file=sys.stderr)
        raise typer.Exit(1) from None
    finally:
        database.close()
