"""`qenex init`: makes a node's home, and gives it its chain once the genesis document is agreed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import output
from cli.settings import Settings, common_options, passphrase_of, passphrase_options
from state.errors import JsonValue, Rejected

if TYPE_CHECKING:
    from qenex_node.config import Config
    from qenex_node.homes import Home

file_option = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("init")
@click.option("--name", help="The node's name, as genesis will give it [needed for a new home].")
@click.option(
    "--role", type=click.Choice(["validator", "full"]), default="validator", show_default=True, help="Vote, or follow."
)
@click.option("--genesis", "genesis_file", type=file_option, help="The agreed genesis document.")
@click.option("--state-file", type=file_option, help="The file of accounts that genesis names by hash.")
@click.option("--listen", metavar="HOST:PORT", help="Where to listen for peers.")
@click.option("--advertise", metavar="HOST:PORT", help="Where peers reach this node; goes into the card.")
@click.option("--rpc-port", type=click.IntRange(0, 65535), help="The port of JSON-RPC.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="The port of /metrics.")
@click.option("--peer", "peers", multiple=True, metavar="NAME@HOST:PORT", help="A peer to dial; may be repeated.")
@click.option("--card", "cards", multiple=True, type=file_option, help="Another validator's card: dial it, too.")
@click.option("--plain", is_flag=True, help="Do not encrypt the keys: for test networks only.")
@passphrase_options
@common_options
@click.pass_obj
def command(
    settings: Settings,
    /,
    name: str | None,
    role: str,
    genesis_file: Path | None,
    state_file: Path | None,
    plain: bool,
    passphrase_file: Path | None,
    passphrase_fd: int | None,
    **network: Any,
) -> None:
    """Make a node's home: keys, configuration, vote records.

    Before the chain has a genesis document, run it without --genesis, and give your validator.card.json to the others.
    Once the document is agreed, run `qenex init --genesis FILE` on the same home. With --genesis at once, both happen.
    """
    from qenex_node.homes import Home, create_home, install_chain

    home = Home(settings.home)
    created = not home.config_file.exists()
    if created:
        if name is None:
            raise Rejected("name_needed", "give the new node a name with --name")
        config = _config(name, role, network)
        passphrase = None if plain else passphrase_of(passphrase_file, passphrase_fd, new=True)()
        create_home(settings.home, config, passphrase=passphrase)
    elif genesis_file is None:
        raise Rejected("home_exists", f"{settings.home} is a node's home already: nothing was changed")
    votes = install_chain(home, genesis_file, state_file) if genesis_file is not None else None
    _answer(settings, home, created, votes)


def _config(name: str, role: str, network: dict[str, Any]) -> Config:
    """Returns the configuration of a new home, checked as if it had been read."""
    from qenex_node.config import Config, parse, parse_address
    from qenex_node.configfile import render
    from qenex_node.homes import read_card

    config = Config()
    p2p = config.p2p
    if network["listen"]:
        try:
            host, port = parse_address(network["listen"])
        except ValueError as error:
            raise Rejected("config_invalid", f"--listen: {error}") from None
        p2p = dataclasses.replace(p2p, listen_host=host, listen_port=port)
    carded = [read_card(path) for path in network["cards"]]
    dialed = [f"{card.validator.name}@{card.p2p}" for card in carded if card.p2p and card.validator.name != name]
    p2p = dataclasses.replace(
        p2p, advertise=network["advertise"] or "", peers=tuple(dict.fromkeys((*network["peers"], *dialed)))
    )
    rpc, metrics = config.rpc, config.metrics
    if network["rpc_port"] is not None:
        rpc = dataclasses.replace(rpc, port=network["rpc_port"])
    if network["metrics_port"] is not None:
        metrics = dataclasses.replace(metrics, port=network["metrics_port"])
    node = dataclasses.replace(config.node, name=name, role=role)
    written = render(dataclasses.replace(config, node=node, p2p=p2p, rpc=rpc, metrics=metrics))
    return parse(written, "command line")


def _answer(settings: Settings, home: Home, created: bool, votes: bool | None) -> None:
    from p2p.identity import node_id
    from qenex_node.config import load
    from qenex_node.homes import read_genesis
    from qenex_node.keystore import inspect_key

    config = load(home.config_file)
    is_validator = config.node.role == "validator"
    node = inspect_key(home.node_key_file)
    document: dict[str, JsonValue] = {
        "home": str(home.path),
        "name": config.node.name,
        "role": config.node.role,
        "created": created,
        "encrypted": node.encrypted,
        "node_key": "0x" + node.public.data.hex(),
        "node_id": "0x" + node_id(node.public.data),
    }
    hints: list[str] = []
    line = f'"{config.node.name}={document["node_key"]}"'
    if is_validator:
        document["validator_key"] = "0x" + inspect_key(home.validator_key_file).public.data.hex()
        document["card"] = str(home.card_file)
    else:
        hints.append(f"Validators let it connect with this in p2p.permitted_full_nodes of their configuration: {line}")
    if votes is None:
        if is_validator:
            hints.append(f"Next: give {home.card_file} to whoever makes the genesis document (qenex genesis --help).")
        hints.append(f"Then: qenex init --home {home.path} --genesis FILE")
    else:
        genesis = read_genesis(home.path / config.chain.genesis_file)
        document |= {
            "chain_id": genesis.chain_id,
            "genesis_hash": "0x" + genesis.hash.hex(),
            "vote_records_created": votes,
        }
        if is_validator and not votes:
            hints.append(
                "This key had a chain before, so it gets no new vote records and will not vote: "
                f"qenex recover --home {home.path}"
            )
        if is_validator and all(v.node_key.hex() != node.public.data.hex() for v in genesis.validators.validators):
            hints.append(
                "Genesis does not name these keys: the node follows the chain until governance adds them. Unless they "
                f"have, validators let it connect with this in p2p.permitted_full_nodes: {line}"
            )
        hints.append(f"Next: qenex start --home {home.path}")
    if not node.encrypted:
        hints.insert(0, "The keys are NOT ENCRYPTED: for test networks only.")
    output.answer(settings, document, output.fields(document), *hints)
