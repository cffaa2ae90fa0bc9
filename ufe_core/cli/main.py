"""The `ufe` command: finds its subcommands by entry point, and shows errors as one line."""

import difflib
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Sequence

import click

from ufe_core import __version__
from ufe_core.errors import DISK_FULL, PluginError, UfeError
from ufe_core.memory import ask_for_large_pages

GROUP = "ufe.commands"

HELP = """Drive an avatar from the cameras inside a VR headset, and measure how well any method does it.

A method is built of components: a SOURCE of headset captures, an ENCODER that turns camera images into an
expression code, a CALIBRATOR that adds what a person's anchor expressions tell, a DETECTOR that finds keypoints
for encoders that want them, a PRETRAINING that teaches an encoder before it sees labels, a DECODER that turns the
code into a face, and METRICS. Components come from plugins; `ufe plugins` lists them.

\b
Start here:
  ufe bench                        measure the default method on 32 people never seen in training
  ufe bench --encoder mean         the same for another encoder
  ufe plugins                      what is installed
  ufe plugins show univ            one component and its options
  ufe source preview               look at the simulated headset's images
  ufe leaderboard                  every result measured so far

\b
Environment:
  UFE_HOME     folder for captures, weights and results (default: the user's cache folder)
  UFE_DEBUG=1  show the traceback of an error

Run `ufe COMMAND --help` for more on a command.
"""


class CommandGroup(click.Group):
    """Imports a subcommand when it is asked for: one that is slow or broken costs the others nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all installed commands."""
        return sorted({entry.name for entry in importlib.metadata.entry_points(group=GROUP)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command.

        Raises:
            PluginError: it cannot be imported, or two distributions have one of that name.
        """
        entries = sorted(importlib.metadata.entry_points(group=GROUP, name=cmd_name), key=lambda entry: entry.value)
        if not entries:
            return None
        if len(entries) > 1:
            owners = " and ".join(repr(entry.dist.name if entry.dist else entry.value) for entry in entries)
            raise PluginError(f"Command {cmd_name!r} is claimed by {owners}. Uninstall one of them.")
        try:
            command = entries[0].load()
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"Command {cmd_name!r} cannot be loaded from '{entries[0].value}': {type(error).__name__}: {error}"
            ) from error
        if not isinstance(command, click.Command):
            raise PluginError(f"Command {cmd_name!r}: '{entries[0].value}' is not a click command.")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of a command line; an unknown one is answered with the nearest."""
        name = args[0]
        known = self.list_commands(ctx)
        if name not in known and not name.startswith("-"):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No command {name!r}.{hint} Commands: {', '.join(known)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands; one that does not load is listed with the reason."""
        rows = []
        for name in self.list_commands(ctx):
            try:
                command = self.get_command(ctx, name)
            except PluginError as error:
                rows.append((name, f"(does not load) {error}"))
                continue
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(limit=90)))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


@click.group(cls=CommandGroup, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ufe")
def cli() -> None:
    """Root of the command line; `HELP` is its text."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 misused, 130 interrupted."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        code = _leave_quietly()
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    ask_for_large_pages()
    try:
        result = cli.main(args=list(arguments) if arguments is not None else None, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("ufe: interrupted; finished work is kept, run the same command again to go on", err=True)
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        text = _one_line(error)
        if text is None:
            raise
        if os.environ.get("UFE_DEBUG") == "1":
            traceback.print_exc()
        click.echo(f"ufe: error: {text}", err=True)
        return 1


def _one_line(error: Exception) -> str | None:
    """What to tell of an error that is no mistake in the program; None of one that is."""
    if isinstance(error, UfeError):
        return str(error)
    if isinstance(error, OSError):
        return _explain_os_error(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, not imported for it
        reason = (str(error).splitlines() or [""])[0]
        return (
            f"The memory is used up{': ' + reason if reason else '.'} Let a step take fewer frames (--set "
            "training.frames_per_user=), run fewer --workers, or use another --device; finished work is kept."
        )
    return None


def _explain_os_error(error: OSError) -> str:
    where = f" '{error.filename}'" if error.filename is not None else ""
    if error.errno in DISK_FULL:
        return (
            f"The disk is full{', writing' + where if where else ''}. Free some space, or write to a larger disk "
            "(UFE_HOME, or the command's --out); finished work is kept."
        )
    reason = error.strerror or str(error) or type(error).__name__
    return f"{reason}:{where}." if where else f"{reason}."


def _leave_quietly() -> int:
    # The reader went away (`ufe plugins | head`). Python would complain again when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
