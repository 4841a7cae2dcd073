"""A peer written from docs/protocol.md alone, with nothing of ours, joins a real node of ours over TCP and TLS.

It uses the standard library and an Ed25519 signer. Where a test here fails, the document is wrong.
"""

import base64
import secrets
import socket
import ssl
from hashlib import sha1
from pathlib import Path

import pytest
import trio
from nacl.signing import SigningKey, VerifyKey

from p2p.hello import LocalNode, PermittedPeer, Role
from p2p.identity import NodeKey
from p2p.network import Network
from p2p.wire import Kind
from state.keys import SigningKey as OurKey
from state.keys import verify_ed25519
from state.types import ChainContext
from tests.conformance.test_independent_client import encode, sha256, tag

CHAIN_ID, GENESIS_HASH = "independent-1", sha256(b"genesis")


# ---- certificates: section "Transport" ----


def tlv(kind, *parts):
    content = b"".join(parts)
    size = len(content)
    length = (
        bytes([size]) if size < 128 else b"\x81" + bytes([size]) if size < 256 else b"\x82" + size.to_bytes(2, "big")
    )
    return bytes([kind]) + length + content


ED25519 = tlv(0x30, bytes.fromhex("06032b6570"))


def name(text):
    return tlv(0x30, tlv(0x31, tlv(0x30, bytes.fromhex("0603550403"), tlv(0x0C, text.encode()))))


def extension(last, content, *, critical):
    return tlv(0x30, tlv(0x06, bytes([0x55, 0x1D, last])), b"\x01\x01\xff" if critical else b"", tlv(0x04, content))


def certificate(key, signer, *, is_anchor):
    """The certificate of a node key, in DER."""
    short = sha256(key).hex()[:40]
    extensions = [
        extension(14, tlv(0x04, sha1(key).digest()), critical=False),
        extension(19, bytes.fromhex("30060101ff020100" if is_anchor else "3000"), critical=True),
        extension(15, bytes.fromhex("03020204" if is_anchor else "03020780"), critical=True),
    ]
    if not is_anchor:
        usages = bytes.fromhex("301406082b0601050507030106082b06010505070302")
        extensions.append(extension(37, usages, critical=False))
    issuer = name(f"qenex anchor {short}")
    content = tlv(
        0x30,
        bytes.fromhex("a003020102"),
        bytes([2, 1, 1 if is_anchor else 2]),
        ED25519,
        issuer,
        tlv(0x30, tlv(0x17, b"700101000000Z"), tlv(0x18, b"99991231235959Z")),
        issuer if is_anchor else name(f"qenex peer {short}"),
        tlv(0x30, ED25519, tlv(0x03, b"\0", key)),
        tlv(0xA3, tlv(0x30, *extensions)),
    )
    return tlv(0x30, content, ED25519, tlv(0x03, b"\0", signer.sign(content).signature))


def anchor_of(key):
    return certificate(key, SigningKey(bytes(32)), is_anchor=True)


class Node:
    """A node key with its leaf."""

    def __init__(self, seed):
        self.signer = SigningKey(seed)
        self.seed = seed
        self.public = self.signer.verify_key.encode()
        self.id = sha256(self.public)
        self.leaf = certificate(self.public, self.signer, is_anchor=False)

    def tls(self, permitted, folder):
        """A TLS context for dialing that accepts the permitted keys."""
        path = Path(folder) / "leaf.pem"
        private = bytes.fromhex("302e020100300506032b657004220420") + self.seed
        path.write_text(pem("PRIVATE KEY", private) + pem("CERTIFICATE", self.leaf))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.load_verify_locations(cadata=b"".join(map(anchor_of, permitted)))
        context.load_cert_chain(path)
        return context


def pem(what, data):
    return f"-----BEGIN {what}-----\n{base64.encodebytes(data).decode()}-----END {what}-----\n"


# ---- frames ----


def decode(data, at=0):
    """Reads one value that is known to be canonical; returns it and where it ends."""
    head = data[at]
    at += 1
    if head < 0x80:
        return head, at
    if head in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[head], at
    if 0xCC <= head <= 0xCF:
        size = 1 << (head - 0xCC)
        return int.from_bytes(data[at : at + size], "big"), at + size
    if head & 0xF0 == 0x90 or head in (0xDC, 0xDD):
        size = 0 if head & 0xF0 == 0x90 else 2 << (head - 0xDC)
        count = head & 0x0F if size == 0 else int.from_bytes(data[at : at + size], "big")
        at += size
        items = []
        for _ in range(count):
            item, at = decode(data, at)
            items.append(item)
        return tuple(items), at
    if head & 0xE0 == 0xA0:
        return data[at : at + (head & 0x1F)].decode(), at + (head & 0x1F)
    size = 1 << (head - 0xC4 if head < 0xD9 else head - 0xD9)
    length = int.from_bytes(data[at : at + size], "big")
    content = data[at + size : at + size + length]
    return (content if head < 0xD9 else content.decode()), at + size + length


class Link:
    """One connection: frames out, frames in."""

    def __init__(self, stream):
        self.stream = stream

    def send(self, *frame):
        payload = encode(frame)
        self.stream.sendall(len(payload).to_bytes(4, "big") + payload)

    def exactly(self, size):
        data = b""
        while len(data) < size:
            part = self.stream.recv(size - len(data))
            if not part:
                raise EOFError("the node hung up")
            data += part
        return data

    def receive(self):
        payload = self.exactly(int.from_bytes(self.exactly(4), "big"))
        value, end = decode(payload)
        assert end == len(payload)
        assert encode(value) == payload
        return value

    def receive_kind(self, kind):
        """The next frame of a kind; answers PINGs as each node must."""
        while True:
            frame = self.receive()
            if frame[0] == 4:
                self.send(5, (frame[1], 1_700_000_000_000))
            if frame[0] == kind:
                return frame


def greet(link, own, consensus, nonce, other_id):
    """Section "The greeting"; returns the other's HELLO and HELLO_ACK."""
    link.send(1, (1, CHAIN_ID, GENESIS_HASH, own.id, "validator", "", 0, consensus.verify_key.encode(), nonce))
    kind, hello = link.receive()
    assert kind == 1
    assert hello[:4] == (1, CHAIN_ID, GENESIS_HASH, other_id)
    preimage = tag("hello") + encode((GENESIS_HASH, own.id, other_id, nonce, hello[8]))
    link.send(2, (consensus.sign(preimage).signature, None))
    kind, ack = link.receive()
    assert kind == 2
    VerifyKey(hello[7]).verify(tag("hello") + encode((GENESIS_HASH, other_id, own.id, hello[8], nonce)), ack[0])
    return hello, ack


# ---- our node, and what is tried on it ----


class Recorder:
    """The node behind our network: notes what comes."""

    def __init__(self):
        self.connected, self.messages, self.gone = [], [], []

    def on_connected(self, peer):
        self.connected.append(peer)

    def on_disconnected(self, peer, reason):
        self.gone.append(reason)

    def on_message(self, peer, kind, body, raw):
        self.messages.append((kind, body))
        peer.send(kind, body)


OWN, CONSENSUS = Node(sha256(b"own node")), SigningKey(sha256(b"own consensus"))
THEIRS, THEIR_CONSENSUS = NodeKey(sha256(b"their node")), OurKey(1, sha256(b"their consensus"))


def with_node(peer, tmp_path):
    """Runs `peer(link)` in a thread against a network of ours that permits it; returns what the node noted."""
    recorder = Recorder()
    local = LocalNode(
        chain=ChainContext(CHAIN_ID, GENESIS_HASH),
        role=Role.VALIDATOR,
        listen_address="",
        validator_key=THEIR_CONSENSUS.public.data,
        head_height=lambda: 9,
        sign=THEIR_CONSENSUS.sign,
        verify=verify_ed25519,
        latest_vote_seen=lambda key: b"vote" if key == CONSENSUS.verify_key.encode() else None,
    )
    permitted = [PermittedPeer("own", OWN.public, CONSENSUS.verify_key.encode())]
    network = Network(THEIRS, local, recorder, listen="127.0.0.1:0", permitted=permitted)

    def talk(address):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as tcp:
            context = OWN.tls([THEIRS.public], tmp_path)
            with context.wrap_socket(tcp) as stream:
                assert THEIRS.public in stream.getpeercert(binary_form=True)
                peer(Link(stream))

    async def main():
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                (address,) = await nursery.start(network.run)
                await trio.to_thread.run_sync(talk, address)
                nursery.cancel_scope.cancel()

    trio.run(main)
    return recorder


def test_it_joins_answers_and_floods(tmp_path):
    def peer(link):
        hello, ack = greet(link, OWN, CONSENSUS, secrets.token_bytes(32), sha256(THEIRS.public))
        assert hello[4:8] == ("validator", "", 9, THEIR_CONSENSUS.public.data)
        assert ack[1] == b"vote"
        assert link.receive_kind(6) == (6, (OWN.id,))
        link.send(4, 77)
        assert link.receive_kind(5)[1][0] == 77
        link.send(6, (sha256(THEIRS.public),))
        for _ in range(2):
            link.send(8, b"message", b"flood id")
        link.send(13, sha256(b"block"))
        assert link.receive_kind(8) == (8, b"message")
        assert link.receive_kind(13) == (13, sha256(b"block"))

    recorder = with_node(peer, tmp_path)
    assert recorder.messages == [(Kind.CONSENSUS, b"message"), (Kind.BODY_REQUEST, sha256(b"block"))]
    assert recorder.connected[0].role is Role.VALIDATOR


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        (0, 2, "wrong_version"),
        (1, "other-1", "wrong_chain"),
        (2, bytes(32), "wrong_genesis"),
        (3, bytes(32), "wrong_node_id"),
        (4, "full", "not_a_validator"),
        (7, None, "not_a_validator"),
        (8, bytes(31), "malformed"),
    ],
)
def test_it_is_told_why_its_hello_is_refused(tmp_path, field, value, code):
    said = [1, CHAIN_ID, GENESIS_HASH, OWN.id, "validator", "", 0, CONSENSUS.verify_key.encode(), bytes(32)]
    said[field] = value

    def peer(link):
        link.send(1, tuple(said))
        assert link.receive()[0] == 1
        kind, (told, message) = link.receive()
        assert (kind, told) == (3, code)
        assert message

    assert with_node(peer, tmp_path).connected == []


def test_it_is_told_why_its_frame_is_refused(tmp_path):
    def peer(link):
        greet(link, OWN, CONSENSUS, bytes(32), sha256(THEIRS.public))
        link.send(4, "not a number")
        assert link.receive_kind(3)[1][0] == "frame_malformed"

    assert with_node(peer, tmp_path).gone == ["frame_malformed"]
