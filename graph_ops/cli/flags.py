"""One command-line flag per field of the options, generated from the pydantic model.

`min_filters` is `--min-filters`; the fields of a nested model (`target`) are flags of their own,
and a nested model one of whose flags is given is replaced as a whole: `--max-macs-ratio 0.7` takes
the place of whatever target `--options` holds. Values are checked by the model, not by the flag, so
that the command line, Python and HTTP accept the same things and say the same about the rest.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from graph_ops.errors import OptionsError
from graph_ops.options import PruneOptions, parse_options

OPTIONS_FLAG: Final = "--options"
OPTIONS_HELP: Final = (
    "Options as a JSON object, or @FILE with one in it; the flags below override it."
)


@dataclass(frozen=True, eq=False)
class Flag:
    """A flag for one field.

    Attributes:
        path: Names that lead to the field: `("target", "filters")`, `("steps",)`.
        field: The field, for its type and description.
        default: What holds when neither the flag nor `--options` says otherwise.
    """

    path: tuple[str, ...]
    field: FieldInfo
    default: Any

    @property
    def name(self) -> str:
        """The flag as it is typed."""
        return "--" + self.path[-1].replace("_", "-")

    @property
    def is_object(self) -> bool:
        """Whether it is given as a JSON object, in place or as @FILE."""
        return _object_type(self.field.annotation) is not None

    @property
    def help(self) -> str:
        """The field's description on one line."""
        return " ".join((self.field.description or "").split())

    @property
    def parameter(self) -> inspect.Parameter:
        """The keyword parameter typer makes the flag from."""
        panel = "Options" if len(self.path) == 1 else self.path[0].capitalize()
        option = typer.Option(self.name, help=self.help, rich_help_panel=panel)
        default = self.default
        return inspect.Parameter(
            self.path[-1],
            inspect.Parameter.KEYWORD_ONLY,
            default=list(default) if isinstance(default, tuple) else default,
            annotation=Annotated[_flag_type(self.field.annotation), option],
        )


def flags() -> list[Flag]:
    """The flags of all options, those of nested models in their place."""
    return list(_flags(PruneOptions(), ()))


def _flags(defaults: BaseModel, path: tuple[str, ...]) -> Iterator[Flag]:
    for name, field in type(defaults).model_fields.items():
        default = getattr(defaults, name)
        if isinstance(default, BaseModel):
            yield from _flags(default, (*path, name))
        else:
            yield Flag((*path, name), field, default)


def with_option_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--options` and the flags; it gets them as one `PruneOptions`.

    The command takes a keyword argument `read_options`: a function without arguments that parses
    them, so that their errors are raised where the command handles errors.
    """
    generated = flags()
    signature = inspect.signature(command, eval_str=True)
    own = [p for name, p in signature.parameters.items() if name != "read_options"]

    @functools.wraps(command)
    def wrapper(
        ctx: typer.Context, *args: Any, options_json: str | None = None, **given: Any
    ) -> None:
        values = {flag: given.pop(flag.path[-1]) for flag in generated}
        typed = {f: v for f, v in values.items() if _is_typed(ctx, f)}
        command(*args, **given, read_options=lambda: read_options(options_json, typed))

    option = typer.Option(OPTIONS_FLAG, help=OPTIONS_HELP, metavar="JSON|@FILE")
    parameters = [
        inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own),
        inspect.Parameter(
            "options_json",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[str | None, option],
        ),
        *(flag.parameter for flag in generated),
    ]
    # typer reads names and types from these two, not from the wrapper's own code.
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def read_options(text: str | None, typed: dict[Flag, Any]) -> PruneOptions:
    """Options from `--options` with the flags that were typed laid over them.

    Args:
        text: JSON, `@FILE`, or None.
        typed: Values by flag.

    Raises:
        OptionsError: as `parse_options`, or the file cannot be read.
    """
    raw: str | bytes = "{}" if text is None else _json_text(text)
    if not typed:
        return parse_options(raw)
    try:
        merged = json.loads(raw)
    except ValueError:
        merged = None
    if not isinstance(merged, dict):
        return parse_options(raw)  # raises, in the words every caller of the options sees
    for outer in {flag.path[0] for flag in typed if len(flag.path) > 1}:
        merged[outer] = {}
    for flag, value in typed.items():
        place = merged
        for name in flag.path[:-1]:
            place = place[name]
        place[flag.path[-1]] = _as_object(value) if flag.is_object else value
    return parse_options(json.dumps(merged))


def read_object(text: str) -> dict[str, Any]:
    """A JSON object in place, or from @FILE.

    Raises:
        OptionsError: it is none.
    """
    found = _as_object(text)
    if not isinstance(found, dict):
        raise OptionsError(f"{text[:80]!r} is no JSON object.")
    return found


def _as_object(text: str) -> Any:
    """A JSON object in place, or from @FILE; what is not JSON is left to the options to refuse."""
    raw = _json_text(text)
    try:
        return json.loads(raw)
    except ValueError:
        return text


def _json_text(text: str) -> str | bytes:
    if not text.startswith("@"):
        return text
    path = Path(text[1:])
    try:
        return path.read_bytes()
    except OSError as error:
        raise OptionsError(
            f"The options file {str(path)!r} cannot be read: {error.strerror or error}.",
            file=str(path),
        ) from None


def _is_typed(ctx: typer.Context, flag: Flag) -> bool:
    source = ctx.get_parameter_source(flag.path[-1])
    return source is not None and source.name != "DEFAULT"


def _object_type(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, if it holds one or none."""
    kinds = get_args(annotation) or (annotation,)
    found = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
    return found[0] if found else None


def _flag_type(annotation: Any) -> Any:
    """The type of a field as typer takes it: no constraints, tuples repeated, objects as text."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _flag_type(arguments[0])
    if origin in (Union, UnionType):
        kinds = [_flag_type(a) for a in arguments if a is not type(None)]
        if len(kinds) != 1:
            raise TypeError(f"a flag has one type; {annotation} has several")
        return kinds[0] | None
    if _object_type(annotation) is not None:
        return str
    if origin is tuple:
        return list[_flag_type(arguments[0])]  # type: ignore[misc]
    return annotation
