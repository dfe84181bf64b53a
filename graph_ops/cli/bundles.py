"""`bundle make`: images and other bundles as an `.npz`, and the settings that images need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from graph_ops.bundle import (
    InputSpec,
    Preprocessing,
    describe_bundle,
    guess_preprocessing,
    make_bundle,
    parse_preprocessing,
)
from graph_ops.cli import display
from graph_ops.cli.exits import exit_on_error
from graph_ops.cli.flags import read_object
from graph_ops.cli.outputs import check_output
from graph_ops.errors import OptionsError, PreprocessingError
from graph_ops.model import load_model
from graph_ops.run import input_specs

bundle_app = typer.Typer(help="Calibration data.", no_args_is_help=True)


@bundle_app.callback()
def _root() -> None:
    """Calibration data."""


@bundle_app.command()
def make(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A folder, an archive or a parquet file: docs/bundles.md."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the `.npz` goes.")],
    model: Annotated[
        Path | None,
        typer.Option(help="The model it is for: names the array, and allows a guess."),
    ] = None,
    preprocessing: Annotated[
        str | None,
        typer.Option(
            metavar="JSON|@FILE", help="Settings for images, in place of their `bundle.json`."
        ),
    ] = None,
    accept_guess: Annotated[
        bool,
        typer.Option(
            "--accept-guess", help="Use the guess from the model where images have no settings."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Make an `.npz` of images, with the same preprocessing that a run would use."""
    with exit_on_error():
        check_output("--out", out, source, model)
        if out.suffix != ".npz":
            raise OptionsError(f"--out: {str(out)!r} has to end with .npz.", flag="--out")
        if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise OptionsError(
                f"--out: {str(out)!r} lies in the folder that is read; put it elsewhere.",
                flag="--out",
            )
        if accept_guess and model is None:
            raise OptionsError("--accept-guess: the guess comes from --model; give it.")
        specs = None if model is None else input_specs(load_model(model).model)
        settings = None
        if preprocessing is not None:
            settings = parse_preprocessing(read_object(preprocessing), "--preprocessing")
        elif accept_guess and specs is not None:
            settings = _accepted(source, specs)
        bundle = make_bundle(source, out, preprocessing=settings, inputs=specs)
        facts = {
            "bundle": str(out),
            "bytes": out.stat().st_size,
            "arrays": [
                {"name": i.name, "dtype": str(i.dtype), "shape": list(i.shape)}
                for i in bundle.arrays.values()
            ],
            "images": None if bundle.images is None else bundle.images.as_json(),
        }
        if as_json:
            display.print_json(facts)
        else:
            display.print_bundle(facts)


def _accepted(source: Path, specs: list[InputSpec]) -> Preprocessing | None:
    """The guess, told on stderr, for images without settings; None where there are settings.

    Raises:
        PreprocessingError: no guess can be made.
    """
    images = describe_bundle(source)["images"]
    if images is None or images["preprocessing"] is not None:
        return None
    guess = guess_preprocessing(specs)
    if guess is None:
        raise PreprocessingError(
            "The model's inputs do not look like one image, so there is no guess: give the "
            "settings with --preprocessing.",
            guess=None,
        )
    typer.echo(f"preprocessing, guessed from the model: {json.dumps(guess.settings)}", err=True)
    return guess
