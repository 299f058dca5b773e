"""The commands: parsing and printing only."""

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from leadline.cli.ask import COMMANDS as ASK
from leadline.cli.judge import COMMANDS as JUDGE
from leadline.cli.look import COMMANDS as LOOK
from leadline.cli.train import COMMANDS as TRAIN
from leadline.cli.use import COMMANDS as USE

__all__ = ["app", "main"]

_USAGE = typer.BadParameter.__mro__[2]  # what every mistake in the arguments is, wherever typer keeps it
_BROKEN_PIPE, _INTERRUPTED = 141, 130


class _Commands(TyperGroup):
    """The commands in the order of the work; a mistyped one gets the nearest name."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order in which they were added."""
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that `args` begin with."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            from leadline.core.errors import unknown_name

            raise unknown_name("command", args[0], self.commands)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Commands,
    help="Train any model of a deep-learning course on your own data, check it, compare it.\n\n"
    "\b\nExample:\n  leadline compare digits --out demo\n  leadline fit vae digits --epochs 20 --out runs/a\n"
    "  leadline sample runs/a -n 64",
    epilog="Exit status: 0 done, 2 your input was wrong (one line says what), 130 stopped by Ctrl-C.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _help(command: Callable[..., None]) -> str:
    """Return the docstring of a command, its example kept line by line."""
    return inspect.cleandoc(command.__doc__ or "").replace("\nExample:", "\n\b\nExample:")


for _command in (*LOOK, *TRAIN, *USE, *ASK, *JUDGE):
    app.command(help=_help(_command))(_command)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"leadline {version('leadline')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
) -> None:
    """Take the options that stand before every command; main has read --debug already."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        arguments: What follows `leadline` on the command line; that of this process by default.

    Returns:
        0 done, 1 a fault of leadline, 2 the user's error, 130 Ctrl-C, 141 a pipe that nobody reads.
    """
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    plain = given[: given.index("--")] if "--" in given else given
    debug = "--debug" in plain
    rest = [word for word in plain if word != "--debug"] + given[len(plain) :]
    try:
        return _run(rest or ["--help"])
    except KeyboardInterrupt as stop:
        return _fail(f"{stop}" or "stopped by Ctrl-C", _INTERRUPTED, debug=debug, lead="")
    except BrokenPipeError:
        _let_go_of_stdout()
        return _BROKEN_PIPE
    except Exception as error:  # noqa: BLE001
        message, status = _explained(error)
        try:
            sys.stdout.flush()
        except OSError:  # a full disk: what is left unwritten must not fail again at exit
            _let_go_of_stdout()
        return _fail(message, status, debug=debug)


def _let_go_of_stdout() -> None:
    """Send what is still to be written to nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    """Run one command; what it raises goes to the caller."""
    command: Any = typer.main.get_command(app)
    try:
        with command.make_context("leadline", arguments) as context:
            command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    finally:
        sys.stdout.flush()
    return 0


def _explained(error: Exception) -> tuple[str, int]:
    """Return what to tell the user of an error, and the exit status."""
    if isinstance(error, _USAGE):
        message = str(error.format_message())  # type: ignore[attr-defined]
        context = getattr(error, "ctx", None)
        hint = f" ({context.command_path} --help shows how)" if context is not None else ""
        return message.rstrip(".") + hint, 2
    if isinstance(error, OSError) and error.errno is not None:
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror or error}", 2
    from leadline.core import LeadlineError

    if isinstance(error, LeadlineError):
        return str(error), 2
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "not enough memory; use fewer samples, a smaller batch or a smaller model", 2
    where = f"{type(error).__name__}: {error}".splitlines()[0]
    return f"{where}; this is a fault of leadline: run with --debug to see where", 1


def _fail(message: str, status: int, *, debug: bool, lead: str = "error: ") -> int:
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"{lead}{message}\n")
    return status
