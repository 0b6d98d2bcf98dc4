"""Options of a command made from the fields of a dataclass that declares them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from nst.cli.options import numbers, whole_numbers, words
from nst.options import OptionField, option_fields

_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_PANELS = (  # in the order of the help
    *("Options", "How it looks", "Content", "Quality", "Machine and memory", "Run and files"),
    *("Model and its description", "Experts"),
)
_PARSERS: dict[Any, Callable[[str, str], Any]] = {
    float: numbers,
    int: whole_numbers,
    str: lambda _, text: words(text),
}


def with_options(
    *owners: type, leave_out: tuple[str, ...] = (), panel: str = ""
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that dataclasses declare.

    The command's argument `given` receives those that the command line gives, by their names and
    parsed to the types of their fields; the command's own options are among them, unparsed.

    Args:
        owners: dataclasses whose fields declare options (see `nst.options`).
        leave_out: names of options that the command does not take.
        panel: heading for all of them in the help, which then shows no defaults.
    """
    made = {o.name: o for o in option_fields(*owners) if o.name not in leave_out}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = dict(inspect.signature(function, eval_str=True).parameters)
        del own["given"]
        parameters = [
            *(p.replace(kind=_KEYWORD) for name, p in own.items() if name not in made),
            *(_parameter(option, panel) for option in made.values()),
        ]
        context = inspect.Parameter("ctx", _KEYWORD, annotation=typer.Context)
        parameters = [context, *sorted(parameters, key=_place)]

        @functools.wraps(function)
        def command(ctx: typer.Context, **values: Any) -> None:
            given = {
                name: _parsed(made[name], value) if name in made else value
                for name, value in given_options(ctx, values).items()
            }
            function(given=given, **{name: values[name] for name in own})

        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def given_options(ctx: typer.Context, values: Mapping[str, Any]) -> dict[str, Any]:
    """Select those of a command's arguments `values` that the command line gives."""
    sources = {name: ctx.get_parameter_source(name) for name in values}
    return {
        name: values[name]  # not ctx.params[name], whose type may differ
        for name, source in sources.items()
        if source is not None and source.name == "COMMANDLINE"
    }


def make_config(owner: type, given: Mapping[str, Any], **more: Any) -> Any:
    """Make a dataclass of the options among `given` that it declares, and of `more`."""
    own = {o.name: o.field for o in option_fields(owner) if o.owner is owner}
    return owner(**{own[name]: given[name] for name in own if name in given}, **more)


def _place(parameter: inspect.Parameter) -> tuple[int, bool]:
    """Return the sort key of a parameter: the place of its panel in the help, `debug` last."""
    found = [x for x in get_args(parameter.annotation) if hasattr(x, "rich_help_panel")]
    name = (found[0].rich_help_panel if found else None) or _PANELS[0]
    place = _PANELS.index(name) if name in _PANELS else len(_PANELS)
    return place, parameter.name == "debug"


def _parameter(option: OptionField, panel: str) -> inspect.Parameter:
    """Make the parameter by which typer knows an option."""
    default, kind, name = option.default, option.type, option.name.replace("_", "-")
    flag = f"--{name}/--no-{name}" if kind is bool and default else f"--{name}"
    if get_origin(kind) is tuple:
        kind = list[Path] if get_args(kind)[0] is Path else str
        default = ",".join(map(str, default)) if default and kind is str else None
    elif {Path, str} <= set(get_args(kind)):
        kind = str
    if panel or default is MISSING or default is None:
        kind, default = kind | None, None
    heading = panel or option.option.panel
    info = typer.Option(flag, help=option.option.help, rich_help_panel=heading)
    return inspect.Parameter(
        option.name, _KEYWORD, default=default, annotation=Annotated[kind, info]
    )


def _parsed(option: OptionField, value: Any) -> Any:
    """Turn what the command line gives for an option into a value of its field's type."""
    if get_origin(option.type) is not tuple:
        return value
    element = get_args(option.type)[0]
    if element is Path:
        return tuple(value)
    return _PARSERS[element]("--" + option.name.replace("_", "-"), value)
