"""Declares fields of a dataclass as options of a command and keys of a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Option:
    """The declaration of an option: a field annotated with it becomes an option of the command.

    Args:
        help: text of the command's help.
        panel: heading under which the help lists it.
        name: name of the option and of the file's key; empty for the field's name.
    """

    help: str
    panel: str = "Options"
    name: str = ""


@dataclass(frozen=True)
class OptionField:
    """A declared option.

    Attributes:
        name: name of the option and of the file's key, with underscores.
        field: name of the dataclass's field.
        owner: the dataclass.
        type: type of the field.
        default: default of the field; `MISSING` where there is none.
        option: the declaration.
    """

    name: str
    field: str
    owner: type
    type: Any
    default: Any
    option: Option


def option_fields(*owners: type) -> Iterator[OptionField]:
    """Yield the options that dataclasses declare, and those of dataclasses among their fields."""
    for owner in owners:
        hints = get_type_hints(owner, include_extras=True)
        for field in fields(owner):
            hint, extras = hints[field.name], []
            if get_origin(hint) is Annotated:
                hint, *extras = get_args(hint)
            for option in extras:
                if isinstance(option, Option):
                    name = option.name or field.name
                    yield OptionField(name, field.name, owner, hint, field.default, option)
            if is_dataclass(hint):
                assert isinstance(hint, type)
                yield from option_fields(hint)
