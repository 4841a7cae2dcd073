"""A client written from docs/protocol.md alone, with nothing of ours: it must come to the bytes of the test vectors.

It imports only the standard library and an Ed25519 signer. Where a test here fails, the document or a vector is wrong.
"""

import json
from hashlib import sha256 as _sha256
from pathlib import Path

import pytest
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

DIRECTORY = Path(__file__).parent / "vectors"
ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def load(name):
    return json.loads((DIRECTORY / f"{name}.json").read_text())


def raw(text):
    return bytes.fromhex(text[2:])


def sha256(data):
    return _sha256(data).digest()


def tag(name):
    return f"QENEX/{name}/1".encode() + b"\0"


def encode(value):
    """Section "Canonical encoding"."""
    if value is None or value is False or value is True:
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        if value < 128:
            return bytes([value])
        size = next(size for size in (1, 2, 4, 8) if value < 256**size)
        return bytes([{1: 0xCC, 2: 0xCD, 4: 0xCE, 8: 0xCF}[size]]) + value.to_bytes(size, "big")
    if isinstance(value, bytes):
        return sized(len(value), None, [(1, 0xC4), (2, 0xC5), (4, 0xC6)]) + value
    if isinstance(value, str):
        data = value.encode()
        return sized(len(data), (32, 0xA0), [(1, 0xD9), (2, 0xDA), (4, 0xDB)]) + data
    return sized(len(value), (16, 0x90), [(2, 0xDC), (4, 0xDD)]) + b"".join(map(encode, value))


def sized(length, fixed, forms):
    if fixed and length < fixed[0]:
        return bytes([fixed[1] | length])
    size, head = next((size, head) for size, head in forms if length < 256**size)
    return bytes([head]) + length.to_bytes(size, "big")


def amount(text):
    number = int(text)
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def polymod(values):
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, constant in enumerate([0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3]):
            checksum ^= constant if top >> bit & 1 else 0
    return checksum


EXPANDED = [ord("q") >> 5, ord("x") >> 5, 0, ord("q") & 31, ord("x") & 31]


def address_text(address):
    bits = "".join(f"{byte:08b}" for byte in address) + "0000"
    data = [int(bits[at : at + 5], 2) for at in range(0, 260, 5)]
    checksum = polymod([*EXPANDED, *data, 0, 0, 0, 0, 0, 0]) ^ 0x2BC830A3
    return "qx1" + "".join(ALPHABET[n] for n in [*data, *(checksum >> 5 * (5 - at) & 31 for at in range(6))])


def address(text):
    data = [ALPHABET.index(character) for character in text[3:]]
    assert polymod([*EXPANDED, *data]) == 0x2BC830A3
    return int("".join(f"{n:05b}" for n in data[:-6])[:256], 2).to_bytes(32, "big")


SCHEMES = {"ed25519": 1, "ml-dsa-65": 2, "ml-dsa-87": 3}


def policy(said):
    return [said["threshold"], sorted([SCHEMES[key["scheme"]], raw(key["key"])] for key in said["keys"])]


def optional(convert, value):
    return None if value is None else convert(value)


def operation(said):
    """Section "Operations": the fields of each kind in their order."""
    f = said["fields"]
    fields = {
        "transfer": lambda: [
            optional(address, f["source"]),
            f["asset"],
            [[address(r["to"]), amount(r["amount"])] for r in f["recipients"]],
        ],
        "issue_asset": lambda: [
            f["code"],
            f["decimals"],
            f["flags"],
            amount(f["supply"]),
            optional(address, f["issuer"]),
        ],
        "mint": lambda: [f["asset"], address(f["to"]), amount(f["amount"])],
        "burn": lambda: [optional(address, f["source"]), f["asset"], amount(f["amount"])],
        "set_policy": lambda: [optional(address, f["account"]), policy(f["policy"])],
    }[said["kind"]]()
    return [said["kind"], said["version"], fields]


def body(said):
    return [
        said["version"],
        said["chain_id"],
        address(said["sender"]),
        [said["lane"], said["sequence"]],
        said["not_after_ms"],
        optional(address, said["payer"]),
        amount(said["fee_max"]),
        [operation(item) for item in said["operations"]],
        raw(said["memo"]),
    ]


def list_root(leaves):
    """RFC 6962, section 2.1."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0])
    split = 1
    while 2 * split < len(leaves):
        split *= 2
    return sha256(b"\1" + list_root(leaves[:split]) + list_root(leaves[split:]))


def holds(proof, root, state_key, value):
    """Section "State proofs", step by step."""
    k = sha256(state_key)
    bits = "".join(f"{byte:08b}" for byte in k)
    siblings = [raw(sibling) for sibling in proof["siblings"]]
    n = len(siblings)
    leaf = proof["leaf"]
    if value is not None:
        if leaf is None or raw(leaf["key_hash"]) != k or raw(leaf["value_hash"]) != sha256(value):
            return False
    elif leaf is not None:
        other = "".join(f"{byte:08b}" for byte in raw(leaf["key_hash"]))
        if other == bits or other[:n] != bits[:n]:
            return False
    c = b"SPARSE_MERKLE_PLACEHOLDER_HASH__"
    if leaf is not None:
        c = sha256(b"JMT::LeafNode" + raw(leaf["key_hash"]) + raw(leaf["value_hash"]))
    for i, sibling in enumerate(siblings):
        pair = c + sibling if bits[n - 1 - i] == "0" else sibling + c
        c = sha256(b"JMT::IntrnalNode" + pair)
    return c == root


def test_values():
    def value_of(said):
        if isinstance(said, dict):
            return raw(said["bytes"]) if "bytes" in said else int(said["uint"])
        return [value_of(item) for item in said] if isinstance(said, list) else said

    for entry in load("codec")["values"]:
        assert encode(value_of(entry["value"])) == raw(entry["encoded"])
    for entry in load("amounts")["amounts"]:
        assert encode(amount(entry["amount"])) == raw(entry["encoded"])


def test_addresses():
    for entry in load("keys")["policies"]:
        assert encode(policy(entry["policy"])) == raw(entry["encoded"])
        assert sha256(tag("address") + raw(entry["encoded"])) == raw(entry["address"])
        assert address_text(raw(entry["address"])) == entry["text"]
        assert address(entry["text"]) == raw(entry["address"])


def test_transactions_are_built_and_signed():
    vectors = load("transactions")
    seeds = {entry["public"]: raw(entry["seed"]) for entry in load("keys")["keys"]}
    for entry in vectors["transactions"]:
        encoded = encode(body(entry["body"]))
        assert encoded == raw(entry["body_encoded"])
        preimage = tag("transaction") + raw(vectors["genesis_hash"]) + encoded
        assert preimage == raw(entry["preimage"])
        assert sha256(preimage) == raw(entry["id"])
        authorisations = []
        for item in entry["authorisations"]:
            pairs = []
            for signed in item["signatures"]:
                signature = raw(signed["signature"])
                if signed["scheme"] == "ed25519" and signed["key"] in seeds:
                    assert SigningKey(seeds[signed["key"]]).sign(preimage).signature == signature
                pairs.append([[SCHEMES[signed["scheme"]], raw(signed["key"])], signature])
            authorisations.append([address(item["address"]), optional(policy, item["policy"]), sorted(pairs)])
        wire = encode([body(entry["body"]), sorted(authorisations, key=lambda item: item[0])])
        assert wire == raw(entry["wire"])
        assert sha256(tag("wire") + wire) == raw(entry["wire_hash"])


EVENTS = {
    "moved": [("source", address), ("target", address), ("asset", str), ("amount", amount)],
    "minted": [("target", address), ("asset", str), ("amount", amount)],
    "burned": [("source", address), ("asset", str), ("amount", amount)],
    "held": [("account", address), ("asset", str), ("amount", amount)],
    "released": [("account", address), ("asset", str), ("amount", amount)],
    "asset_issued": [("code", str), ("decimals", int), ("issuer", address), ("flags", int)],
    "policy_set": [("account", address), ("threshold", int), ("keys", int), ("policy_hash", raw)],
}


def test_receipts():
    for entry in load("receipts"):
        said = entry["receipt"]
        events = [
            [e["kind"], [convert(e["fields"][name]) for name, convert in EVENTS[e["kind"]]]] for e in said["events"]
        ]
        receipt = [1, raw(said["id"]), said["code"], said["units"], amount(said["fee"]), events]
        assert encode(receipt) == raw(entry["encoded"])


def test_records():
    vectors = load("records")
    for entry in vectors["accounts"]:
        said = entry["account"]
        lanes = [int(n["uint"]) if isinstance(n, dict) else n for n in said["lanes"]]
        balances = said["balances"]
        if balances is not None:
            balances = [[c, amount(balances[c]["available"]), amount(balances[c]["held"])] for c in sorted(balances)]
        extensions = [[item["tag"], raw(item["data"])] for item in said["extensions"]]
        assert encode([1, lanes, optional(policy, said["policy"]), balances, extensions]) == raw(entry["value"])
        assert encode(["account", address(entry["address"])]) == raw(entry["key"])
    for entry in vectors["assets"]:
        said = entry["asset"]
        record = [1, said["code"], said["decimals"], address(said["issuer"]), said["flags"], amount(said["supply"])]
        assert encode(record) == raw(entry["value"])
        assert encode(["asset", said["code"]]) == raw(entry["key"])
    for entry in vectors["balances"]:
        assert encode([1, amount(entry["available"]), amount(entry["held"])]) == raw(entry["value"])
        assert encode(["balance", address(entry["address"]), entry["asset"]]) == raw(entry["key"])


def balances_of(said):
    return [[code, amount(said[code])] for code in sorted(said)]


def test_genesis():
    vectors = load("genesis")
    said = vectors["document"]
    validators = [[v["name"], raw(v["key"]), raw(v["node_key"])] for v in said["validators"]]
    document = [
        said["version"],
        said["chain_id"],
        said["time_ms"],
        validators,
        [[name, said["parameters"][name]] for name in sorted(said["parameters"])],
        [[a["code"], a["decimals"], address(a["issuer"]), a["flags"]] for a in said["assets"]],
        [[address(a["address"]), balances_of(a["balances"])] for a in said["accounts"]],
        said["state_file"],
    ]
    assert encode(document) == raw(vectors["encoded"])
    assert sha256(tag("genesis") + encode(document)) == raw(vectors["hash"])
    assert sha256(tag("validators") + encode(validators)) == raw(vectors["validators_hash"])


def header_of(said):
    return [raw(v) if isinstance(v, str) and v.startswith("0x") else v for v in said.values()]


def test_a_final_block_is_verified():
    vectors, genesis = load("blocks"), load("genesis")
    said = vectors["headers"][0]["header"]
    names = "version chain_id height time_ms parent_hash tx_root receipts_root state_root validators_hash"
    names += " next_validators_hash proposer evidence_hash units_used"
    assert list(said) == names.split()
    header = header_of(said)
    assert encode(header) == raw(vectors["headers"][0]["encoded"])
    block_hash = sha256(tag("header") + encode(header))
    assert block_hash == raw(vectors["headers"][0]["hash"])
    assert sha256(tag("evidence") + encode([])) == raw(said["evidence_hash"])
    wires = [raw(entry["wire"]) for entry in load("transactions")["transactions"]]
    assert list_root([sha256(tag("wire") + wire) for wire in wires]) == raw(said["tx_root"])
    assert encode([header, wires, []]) == raw(vectors["block"]["encoded"])

    certificate = vectors["certificate"]
    commits = {s["validator"]: raw(s["signature"]) for s in vectors["votes"][1]["signatures"]}
    signatures = [[index, commits[index]] for index in certificate["signers"]]
    assert encode([2, certificate["height"], certificate["view"], block_hash, signatures]) == raw(
        certificate["encoded"]
    )
    n = len(genesis["document"]["validators"])
    assert len(signatures) >= (n + (n - 1) // 3) // 2 + 1
    preimage = tag("vote") + encode(
        [raw(genesis["hash"]), raw(genesis["validators_hash"]), 2, said["height"], certificate["view"], block_hash]
    )
    for index, signature in signatures:
        VerifyKey(raw(genesis["document"]["validators"][index]["key"])).verify(preimage, signature)
    with pytest.raises(BadSignatureError):
        VerifyKey(raw(genesis["document"]["validators"][0]["key"])).verify(preimage, commits[1])


def decode(data):
    """Section "Canonical encoding", read back; what is no canonical encoding is found by encoding it again."""
    value, rest = decode_one(data)
    assert not rest
    assert encode(value) == data
    return value


def decode_one(data):
    head, rest = data[0], data[1:]
    if head < 0x80:
        return head, rest
    if head in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[head], rest
    if 0xCC <= head <= 0xCF:
        size = 1 << head - 0xCC
        return int.from_bytes(rest[:size], "big"), rest[size:]
    if head & 0xF0 == 0x90 or head in (0xDC, 0xDD):
        length, rest = (head & 15, rest) if head < 0xDC else length_of(rest, 2 << head - 0xDC)
        items = []
        for _ in range(length):
            item, rest = decode_one(rest)
            items.append(item)
        return items, rest
    if head & 0xE0 == 0xA0:
        length = head & 31
    else:
        first = 0xC4 if head < 0xD9 else 0xD9
        length, rest = length_of(rest, 1 << head - first)
    text = head & 0xE0 == 0xA0 or head >= 0xD9
    return (rest[:length].decode() if text else rest[:length]), rest[length:]


def length_of(data, size):
    return int.from_bytes(data[:size], "big"), data[size:]


def light_step(genesis_hash, trusted, block):
    """Section "Light verification": "trusted", "undecided" or "refused". Trusted: (height, hash, time, set, next)."""
    header, (kind, height, view, block_hash, signatures), validators = block
    validators_hash = sha256(tag("validators") + encode(validators))
    n = len(validators)
    own = (
        header[8] == validators_hash
        and (height, block_hash) == (header[2], sha256(tag("header") + encode(header)))
        and kind == 2
        and len(signatures) >= (n + (n - 1) // 3) // 2 + 1
    )
    if not own:
        return "refused"
    preimage = tag("vote") + encode([genesis_hash, validators_hash, kind, height, view, block_hash])
    for index, signature in signatures:
        VerifyKey(validators[index][1]).verify(preimage, signature)
    at, at_hash, time, members, following = trusted
    if height == at + 1:
        linked = header[8] == following and (at == 0 or header[4] == at_hash)
        return "trusted" if linked and header[3] > time else "refused"
    known = {member[1] for member in members}
    if sum(validators[index][1] in known for index, _ in signatures) <= (len(members) - 1) // 3:
        return "undecided"
    return "trusted" if height > at and header[3] > time else "refused"


def test_light_blocks_are_verified_through_changes_of_the_set():
    vectors, genesis = load("light"), load("genesis")
    document = genesis["document"]
    members = [[v["name"], raw(v["key"]), raw(v["node_key"])] for v in document["validators"]]
    first = (0, None, document["time_ms"], members, raw(genesis["validators_hash"]))
    for entry in vectors["cases"]:
        trusted = first
        if entry["trusted_height"]:
            header, certificate, validators = decode(raw(vectors["chain"][entry["trusted_height"] - 1]))
            trusted = (header[2], certificate[3], header[3], validators, header[9])
        outcome = light_step(raw(genesis["hash"]), trusted, decode(raw(entry["block"])))
        expected = entry["outcome"] if entry["outcome"] in ("trusted", "undecided") else "refused"
        assert outcome == expected, entry["what"]


def set_of(entries):
    return [[v["name"], raw(v["key"]), raw(v["node_key"])] for v in entries]


PROPOSAL = [
    "by",
    "change",
    "validator",
    "key",
    "node_key",
    "key_proof",
    "node_key_proof",
    "operator",
    "from_height",
    "expires_ms",
]


def test_governance():
    """Section "Validators come and go"."""
    vectors, genesis = load("governance"), load("genesis")
    said = vectors["possession"]
    form = [
        "qenex-validator-possession",
        1,
        raw(genesis["hash"]),
        said["name"],
        raw(said["key"]),
        raw(said["node_key"]),
    ]
    preimage = tag("possession") + encode(form)
    assert preimage == raw(said["preimage"])
    for name in ("key", "node_key"):
        VerifyKey(raw(said[name])).verify(preimage, raw(said[f"{name}_proof"]))
    for entry in vectors["operations"]:
        names = PROPOSAL if entry["kind"] == "governance_propose" else ["proposal", "by", "approve"]
        given = [entry["fields"][name] for name in names]
        given = [raw(value) if isinstance(value, str) and value.startswith("0x") else value for value in given]
        assert encode(given) == raw(entry["encoded"])
    operator = vectors["operator"]
    assert sha256(tag("address") + encode([1, [[1, raw(operator["key"])]]])) == raw(operator["address"])


def test_governance_records():
    vectors, genesis = load("governance"), load("genesis")
    first = set_of(genesis["document"]["validators"])[0]
    eve, operator = vectors["possession"], raw(vectors["operator"]["address"])
    following = set_of(vectors["records"]["following"])
    expires_ms = 1_700_000_600_000
    change = ["add", "eve", raw(eve["key"]), raw(eve["node_key"]), None]
    expected = [
        (["governance", "chain"], raw(genesis["hash"])),
        (["governance", "agenda"], [2, [], [[1, 9, expires_ms, first[1]]], [], []]),
        (["governance", "proposal", 1], [first[1], change, 9, expires_ms, [first[1]], [], "accepted", 0, ""]),
        (["governance", "validator", first[1]], [first[0], first[2], operator, 1, 0, False, 1, [[3, 1, 2]]]),
        (["governance", "name", first[0]], first[1]),
        (["governance", "used", first[2]], first[0]),
        (["validators"], [9, following]),
        (["validators", 9], [1, following]),
    ]
    pairs = [(raw(pair["key"]), raw(pair["value"])) for pair in vectors["records"]["pairs"]]
    assert [(encode(key), encode(value)) for key, value in expected] == pairs


def test_evidence():
    vectors, genesis = load("governance"), load("genesis")
    validators = genesis["document"]["validators"]
    for entry in vectors["evidence"]:
        halves = []
        for half in entry["halves"]:
            digest = raw(half["block_hash"])
            if entry["offence"] == 3:
                digest = sha256(tag("consensus") + digest + raw(half["certificate_hash"]))
            place = [entry["offence"], entry["height"], entry["view"]]
            preimage = tag("vote") + encode([raw(genesis["hash"]), raw(genesis["validators_hash"]), *place, digest])
            VerifyKey(raw(validators[entry["offender"]]["key"])).verify(preimage, raw(half["signature"]))
            halves.append([raw(half["block_hash"]), raw(half["certificate_hash"]), raw(half["signature"])])
        assert halves[0][0] < halves[1][0]
        whole = [9, entry["offence"], entry["height"], entry["view"], entry["offender"], *halves]
        assert encode(whole) == raw(entry["encoded"])
    items = [raw(entry["encoded"]) for entry in vectors["evidence"]]
    assert sha256(tag("evidence") + encode(items)) == raw(vectors["evidence_hash"])


def test_trees_over_lists():
    for entry in load("blocks")["rfc6962"]:
        assert list_root([raw(leaf) for leaf in entry["leaves"]]) == raw(entry["root"])


def test_state_proofs():
    vectors = load("proofs")
    for tree in vectors["trees"]:
        for entry in tree["proofs"]:
            assert holds(entry["proof"], raw(tree["root"]), raw(entry["key"]), optional(raw, entry["value"]))
    for entry in vectors["refused"]:
        value = optional(raw, entry["value"])
        assert not holds(entry["proof"], raw(entry["root"]), raw(entry["key"]), value), entry["what"]
