"""`qenex start`: runs the node in the foreground until it is told to stop."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from cli.settings import Settings, common_options, passphrase_of, passphrase_options


@click.command("start")
@passphrase_options
@common_options
@click.pass_obj
def command(settings: Settings, passphrase_file: Path | None, passphrase_fd: int | None) -> None:
    """Run the node.

    It runs in the foreground, logs to standard error, and ends cleanly on SIGTERM or Ctrl-C. SIGHUP reads the
    configuration again.
    """
    from qenex_node.health import check_disk
    from qenex_node.homes import open_home, read_keys
    from state.store import free_bytes

    node_home = open_home(settings.home)
    check_disk(free_bytes(node_home.home.data), node_home.config.storage.min_free_bytes)
    keys = read_keys(node_home, passphrase_of(passphrase_file, passphrase_fd))

    # The node is loaded once all that a person gets wrong most often is right: those answers come at once.
    import trio

    from qenex_node import logs
    from qenex_node.keylock import hold_key
    from qenex_node.keystore import inspect_key
    from qenex_node.running import run_node

    said = node_home.config.logging
    undo = logs.setup(said.format, said.level, node=node_home.config.node.name)
    try:
        with ExitStack() as held:
            # Keys that are not encrypted are those of test networks: one seed may make several on one machine.
            if keys.validator is not None and inspect_key(node_home.home.validator_key_file).encrypted:
                held.enter_context(hold_key(keys.validator.public.data))
            trio.run(run_node, node_home, keys)
    finally:
        undo()
