"""The sections "Peers" and "JSON-RPC" of docs/protocol.md say what the code does: numbers, codes, shapes, forms."""

import re
from pathlib import Path

import pytest

from consensus import messages
from p2p import counters, limits, wire
from p2p.flood import SeenCache
from p2p.hello import NONCE_BYTES, PROTOCOL_VERSION
from qenex_node import gossip, snapshots, statesync, sync
from qenex_node.client import forms
from qenex_node.rpc import render, schemas
from qenex_node.rpc.params import STATE_KEY
from state.address import to_text
from state.codec import encode
from state.limits import VALIDATORS_MAX
from tests.conformance.make_peer_vectors import COMMITTED, FIRST, VALIDATORS

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
PEERS, RPC = PAGE[PAGE.index("\n## Peers\n") :].split("\n## JSON-RPC\n")
FLAT = " ".join(PEERS.split())


def table_after(text, heading):
    """The rows of the first table after a heading, as lists of cells."""
    lines = text[text.index(heading) :].splitlines()
    start = next(number for number, line in enumerate(lines) if line.lstrip().startswith("|---"))
    rows = []
    for line in lines[start + 1 :]:
        if not line.lstrip().startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]])
    return rows


KINDS = {int(row[0]): row for row in table_after(PEERS, "### Frames")}
BUDGETS = {}
for kinds, frames, sizes in table_after(PEERS, "Each kind has a budget"):
    first, _, last = kinds.partition(" to ")
    numbers = range(int(first), int(last) + 1) if last else map(int, kinds.split(", "))
    for number in numbers:
        BUDGETS[number] = [*map(int, frames.split(", ")), *map(int, sizes.split(", "))]


@pytest.mark.parametrize("rule", wire.KINDS.values(), ids=lambda rule: rule.kind.name)
def test_every_kind_of_frame_stands_in_the_table(rule):
    _, name, _, bytes_max, lane, flooded = KINDS[rule.kind]
    assert (name, int(bytes_max)) == (f"`{rule.kind.name}`", rule.bytes_max)
    assert (lane, flooded) == (rule.lane.name.lower(), "yes" if rule.flooded else "no")
    budget = rule.budget
    assert BUDGETS[rule.kind] == [
        budget.messages_per_second,
        budget.messages_burst,
        budget.bytes_per_second,
        budget.bytes_burst,
    ]


def test_there_are_no_other_kinds_and_lanes():
    assert set(KINDS) == set(BUDGETS) == set(wire.Kind)
    lanes = " before ".join(lane.name.lower() for lane in sorted(wire.Lane))
    assert f"Frames leave by lane: {lanes}" in FLAT
    assert min(wire.Kind) == 1
    assert {kind for kind in wire.Kind if kind <= 3} == wire.GREETING_KINDS
    assert {kind for kind in wire.Kind if kind >= 3} == wire.ESTABLISHED_KINDS


@pytest.mark.parametrize(
    ("kind", "bound"),
    [
        (wire.Kind.TRANSACTIONS, limits.TRANSACTIONS_PER_FRAME_MAX),
        (wire.Kind.TX_ANNOUNCE, limits.HASHES_MAX),
        (wire.Kind.TX_REQUEST, limits.HASHES_MAX),
        (wire.Kind.BLOCKS, limits.BLOCKS_PER_FRAME_MAX),
        (wire.Kind.SNAPSHOTS, limits.SNAPSHOTS_PER_FRAME_MAX),
    ],
)
def test_bounds_of_lists_stand_in_the_table(kind, bound):
    assert KINDS[kind][2].endswith(f"at most {bound}")


@pytest.mark.parametrize(
    "said",
    [
        f"at most {wire._DEPTH_MAX} arrays within each other",
        f"3 to {wire.PAYLOAD_BYTES_MAX} bytes",
        f"A flood id is {limits.FLOOD_ID_BYTES} bytes",
        f"{PROTOCOL_VERSION} is the version of this protocol",
        f"The nonce is {NONCE_BYTES} random bytes",
        f"at most {limits.ADDRESS_LENGTH_MAX} characters",
        f"text of at most 64 and {limits.REASON_LENGTH_MAX} characters",
        f"at most {limits.VOTE_SEEN_BYTES_MAX} bytes",
        f"at most {limits.CLOSE_SECONDS:g} s, since",
        f"TLS has {limits.TLS_SECONDS:g} s, and so has the greeting",
        f"older than {limits.DUPLICATE_SECONDS:g} s, replaces",
        f"on joining and each {limits.PING_INTERVAL_SECONDS:g} s",
        f"for more than {limits.PING_SILENCE_SECONDS_MAX:g} s",
        f"more than {limits.QUEUE_BYTES_MAX} bytes wait",
        f"one write within {limits.WRITE_SECONDS_MAX:g} s",
        f"{limits.POINTS_OVER_BUDGET:g} points for a frame beyond its budget",
        f"{limits.POINTS_REJECTED:g} for a message that only a faulty node sends",
        f"{gossip.POINTS_BAD_SIGNATURE:g} for a transaction with a bad signature",
        f"{limits.POINTS_MALFORMED:g} for bytes that are no frame",
        f"halves each {limits.SCORE_HALF_LIFE_SECONDS:g} s; at {limits.SCORE_BAN:g} points",
        f"banned for {limits.BAN_SECONDS:g} s",
        f"a dialer waits {limits.RETRY_SECONDS_BASE:g} s, doubled each time up to {limits.RETRY_SECONDS_MAX:g} s",
        f"at least the last {limits.SEEN_MAX // 2} are remembered",
        f"waited for {gossip.ANNOUNCE_FIRST_MS} ms",
        f"with at most {gossip.HELD_IDS_MAX} **ids**",
        f"at most {sync.RANGE_BLOCKS_MAX}, and after the first no more than fit into {sync.RANGE_BYTES_MAX} bytes",
        f"waited for {sync.ANSWER_SECONDS_MAX:g} s",
        f"at most {messages.MESSAGE_BYTES_MAX} bytes",
        f"{snapshots.REQUESTS_PER_PEER_MAX} requests for chunks of one peer wait",
        f"{snapshots.SERVED_BYTES_PER_SECOND} bytes of chunks a second",
        f"at most {statesync.CHUNKS_PER_PEER_MAX} chunks under way from one peer",
        f"and {statesync.CHUNKS_UNDER_WAY_MAX} in all; an answer is waited for {statesync.ANSWER_SECONDS_MAX:g} s",
        f"a chunk that takes more than {statesync.HEDGE_SECONDS:g} s",
        f"below {VALIDATORS_MAX}. Heights begin at 1; heights and views are below 2^64 - 1",
        f"A signature is {messages.SIGNATURE_BYTES} bytes",
    ],
)
def test_what_peers_are_held_to_stands_in_the_document(said):
    assert said in FLAT


def test_factors_written_as_words_are_those_of_the_code():
    assert (limits.TLS_SECONDS, limits.RETRY_GROWTH, gossip.ANNOUNCE_GROWTH) == (limits.HELLO_SECONDS, 2, 4)
    assert messages.NUMBER_LIMIT == (1 << 64) - 1
    assert SeenCache()._generation_max == limits.SEEN_MAX // 2


def test_every_code_of_a_reject_is_one_that_a_connection_can_end_with():
    codes = {code for row in table_after(PEERS, "| REJECT's code") for code in re.findall(r"`(\w+)`", row[0])}
    assert codes <= set(counters.CLOSE_REASONS)
    source = "".join(path.read_text() for path in (Path(limits.__file__).parent).glob("*.py"))
    raised = set(re.findall(r'(?:Rejected|FrameError)\(\s*"(\w+)"', source))
    of_operators = {"address_invalid", "permitted_invalid", "seed_invalid"}
    assert raised - of_operators <= codes
    assert codes - raised == {"malformed"}


@pytest.mark.parametrize("kind", messages.Kind, ids=lambda kind: kind.name)
def test_every_consensus_message_stands_in_the_table_with_its_number_of_fields(kind):
    rows = {int(row[0]): row for row in table_after(PEERS, "### Consensus messages")}
    _, name, array = rows[kind]
    assert name == kind.name.replace("_", "-")
    fields = re.sub(r"\[[^\[\]]*\]", "inner", array.strip("`")[1:-1]).split(", ")
    assert fields[0] == str(int(kind))
    from tests.conformance.make_peer_vectors import messages as samples

    assert {len(message.to_value()) for _, message in samples() if message.kind == kind} == {len(fields)}


# ---- JSON-RPC ----


def test_the_header_in_json_has_the_fields_of_the_document_in_order():
    (listed,) = re.findall(r"A header is an object with the fields ([^.]*)\.", " ".join(RPC.split()))
    assert re.findall(r"`(\w+)`", listed) == list(render.header(FIRST))
    values = [value for name, value in render.header(FIRST).items() if name != "hash"]
    array = tuple(bytes.fromhex(v[2:]) if isinstance(v, str) and v.startswith("0x") else v for v in values)
    assert encode(array) == FIRST.encoded
    assert forms.header(render.header(FIRST)) == FIRST


def test_certificates_and_validators_in_json_have_the_fields_of_the_document():
    said = render.certificate(COMMITTED)
    assert [*said, *said["signatures"][0]] == re.findall(
        r'"(\w+)"', next(line for line in RPC.splitlines() if "**Certificate.**" in line)
    )
    said = render.validators(VALIDATORS)
    assert [*said, *said["validators"][0]] == re.findall(
        r'"(\w+)"', next(line for line in RPC.splitlines() if line.startswith("A validator set is"))
    )
    (fields,) = re.findall(r"`qenex_getProof` answers `([^`]*)`", RPC)
    assert sorted(re.findall(r'"(\w+)"', fields)) == sorted(schemas.PROOF["properties"])


def test_state_keys_given_as_arrays_are_those_of_the_document():
    address = bytes(range(32))
    rows = table_after(RPC, "1. **Key.**")
    for _, parameter, key in rows:
        names = re.findall(r'"([^"]*)"', parameter)
        given = [to_text(address) if name == "qx1..." else name for name in names]
        meant = tuple(address if part == "address" else part.strip('"') for part in key.strip("`")[1:-1].split(", "))
        assert STATE_KEY.parse(given) == meant
        assert STATE_KEY.parse("0x" + encode(meant).hex()) == encode(meant)
    assert len(rows) == 5
