"""`qenex completion`: the script that makes a shell complete qenex's command lines."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from cli.settings import common_options
from state.errors import InvariantError

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@common_options
def command(shell: str) -> None:
    """Print the completion script of SHELL.

    For bash: eval "$(qenex completion bash)".
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise InvariantError(f"click knows no completion for {shell}")
    completion = kind(click.Group(), {}, "qenex", "_QENEX_COMPLETE")
    # `source()` would run the shell to ask for its version; the script alone does not need it.
    click.echo(completion.source_template % completion.source_vars())
