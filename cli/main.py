"""The `qenex` command: the table of its commands, and how each of them ends.

Commands are loaded when they are used, so that help and completion answer at once. A command's module in cli/commands/
has the click command as `command`; the table here gives its name and one line of help.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple, NoReturn

import click

from cli.settings import Settings, common_options
from state.errors import InvariantError, Rejected


class Entry(NamedTuple):
    """One line of the table: the module that has the command, and what help says of it."""

    module: str
    help: str


COMMANDS: Final[dict[str, Entry]] = {
    "init": Entry("cli.commands.init", "Make a node's home: keys, configuration, chain."),
    "genesis": Entry("cli.commands.genesis", "Make and check the genesis document."),
    "testnet": Entry("cli.commands.testnet", "Make the homes of a whole test network."),
    "start": Entry("cli.commands.start", "Run the node."),
    "status": Entry("cli.commands.status", "Show where a running node stands."),
    "validators": Entry("cli.commands.validators", "List the validators in force."),
    "peers": Entry("cli.commands.peers", "List a running node's peers."),
    "keys": Entry("cli.commands.keys", "Make and keep account keys."),
    "tx": Entry("cli.commands.tx", "Build, sign and send transactions."),
    "query": Entry("cli.commands.query", "Read accounts, assets, blocks and proofs."),
    "light": Entry("cli.commands.light", "Check what a node answers, trusting only the genesis document."),
    "inspect": Entry("cli.commands.inspect", "Serve read-only RPC from a stopped node's data."),
    "export": Entry("cli.commands.export", "Write blocks as a stream for audit, and check one."),
    "snapshot": Entry("cli.commands.snapshot", "Make, list, prove and restore snapshots of the state."),
    "verify": Entry("cli.commands.verify", "Audit a stopped node's whole chain and state."),
    "rollback": Entry("cli.commands.rollback", "Take the newest block of a stopped node's database back."),
    "recover": Entry("cli.commands.recover", "Let a validator sign again after its vote records were lost."),
    "devnet": Entry("cli.commands.devnet", "Run, load and break a network on this machine."),
    "completion": Entry("cli.commands.completion", "Print the shell's completion script."),
}


class Commands(click.Group):
    """The group whose commands are loaded when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Loads a command; None if there is none of that name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = import_module(entry.module).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the table without loading a command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Completes command names without loading a command."""
        from click.shell_completion import CompletionItem

        items = [
            CompletionItem(name, help=entry.help) for name, entry in COMMANDS.items() if name.startswith(incomplete)
        ]
        return items or super().shell_complete(ctx, incomplete)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="qenex-node", prog_name="qenex")
@common_options
def qenex() -> None:
    """A permissioned, Byzantine-fault-tolerant blockchain node for financial institutions."""


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; every error is written here, in one form."""
    from cli import failures

    settings = Settings(json="--json" in arguments)
    try:
        # Click returns the code of `ctx.exit` here, and None from a command that simply ended.
        code = qenex.main(args=list(arguments), prog_name="qenex", standalone_mode=False, obj=settings)
    except InvariantError as error:
        return failures.invariant(settings.json, error)
    except Rejected as error:
        return failures.rejected(settings.json, error)
    except (KeyboardInterrupt, click.Abort):
        return failures.interrupted(settings.json)
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except click.ClickException as error:
        return failures.usage(settings.json, error)
    except Exception as error:
        return failures.other(settings.json, error)
    return code if isinstance(code, int) else 0


def main() -> NoReturn:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
