"""The command line: the only place that prints and exits.

Exit status is that of sysexits(3); an error is one line on standard error. Each command has a module of
its own, imported when it is asked for.
"""

import importlib
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import click

from ldappolicy import __version__
from ldappolicy import config as configuration
from ldappolicy.errors import (
    ConfigError,
    InputError,
    LdapPolicyError,
    LimitExceeded,
    OracleError,
    Unavailable,
)

if TYPE_CHECKING:  # what only one command takes is not imported for the others
    from ldappolicy.daemon import Timing

EX_USAGE, EX_DATAERR, EX_UNAVAILABLE, EX_TEMPFAIL, EX_CONFIG = 64, 65, 69, 75, 78

DEFAULT_CONFIG = "/etc/ldappolicy/config.toml"


@dataclass(frozen=True, slots=True)
class Context:
    """What every command gets: where the configuration is."""

    path: Path
    timing: "Timing | None" = None
    """Set by tests only."""

    def load(self) -> configuration.Config:
        """The configuration; raises ConfigError."""
        return configuration.load(self.path)


class _Commands(click.Group):
    """Commands by the module that holds them."""

    modules: ClassVar = {
        "serve": "serve",
        "eval": "evaluate",
        "lint": "lint",
        "schema": "schema",
        "load": "load",
        "import": "import_main_cf",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.modules:
            return None
        module = importlib.import_module(f"ldappolicy.cli.{self.modules[cmd_name]}")
        command: click.Command = module.command
        return command


@click.command(cls=_Commands, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ldappolicy")
@click.option(
    "-c",
    "--config",
    metavar="FILE",
    envvar="LDAPPOLICY_CONFIG",
    default=DEFAULT_CONFIG,
    show_default=True,
    show_envvar=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The configuration.",
)
@click.pass_context
def cli(ctx: click.Context, config: Path) -> None:
    """An LDAP-backed directory policy engine for Postfix."""
    # One line for an error: what the rooms below log is for `serve`, which sets its log up.
    logging.getLogger("ldappolicy").addHandler(logging.NullHandler())
    ctx.obj = Context(config, ctx.obj)


def main() -> NoReturn:
    """Runs the command line and exits."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str], timing: "Timing | None" = None) -> int:
    """Runs a command; the exit status."""
    try:
        status: Any = cli.main(arguments, prog_name="ldappolicy", standalone_mode=False, obj=timing)
    except click.ClickException as problem:
        return _say(_usage(problem), EX_USAGE)
    except (click.Abort, KeyboardInterrupt):
        return _say("interrupted", 130)
    except ConfigError as problem:
        return max(_say(complaint, EX_CONFIG) for complaint in problem.complaints)
    except InputError as problem:
        return _say(str(problem), EX_DATAERR)
    except LimitExceeded as problem:
        return _say(f"the directory gives no more than its limits allow: {problem}", EX_UNAVAILABLE)
    except Unavailable as problem:
        return _say(f"the directory is unavailable: {problem}", EX_UNAVAILABLE)
    except OracleError as problem:
        return _say(f"no private Postfix: {problem}", EX_UNAVAILABLE)
    except LdapPolicyError as problem:
        return _say(str(problem), 1)
    return status if isinstance(status, int) else 0


def _usage(problem: click.ClickException) -> str:
    text = problem.format_message().rstrip(".")
    return f"{text[:1].lower()}{text[1:]} (see ldappolicy --help)".replace("\n", " ")


def _say(text: str, status: int) -> int:
    for handler in logging.getLogger("ldappolicy").handlers:
        handler.flush()  # what led to it comes first
    click.echo(f"ldappolicy: {text}", err=True)
    return status
