"""What groups of commands share that also do something by themselves."""

from __future__ import annotations

import click
from click.core import ParameterSource


def refuse_options_before(context: click.Context) -> None:
    """Refuse options of a group that stand before one of its commands, which would not see them.

    Raises:
        click.UsageError: names the first.
    """
    for parameter in context.command.params:
        if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE:
            option, command = parameter.opts[-1], context.invoked_subcommand
            raise click.UsageError(
                f"{option} stands before {command!r} and would not count: write 'ufe {context.info_name} {command} "
                f"... {option}' if it has that option."
            )
