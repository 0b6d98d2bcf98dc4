"""Help of the commands as plain text: to load rich and draw boxes takes a quarter of a second."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand


class SectionedCommand(TyperCommand):
    """A command whose help lists options under the headings that they name."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options, a section for each heading."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                kind = f"{parameter.param_type_name.title()}s"
                heading = getattr(parameter, "rich_help_panel", None) or kind
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def make_app(**options: Any) -> typer.Typer:
    """Make an application with plain help and plain tracebacks."""
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"max_content_width": 100},
        **options,
    )
