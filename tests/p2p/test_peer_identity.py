"""Node keys as certificates: what the pinned TLS contexts accept, and what they refuse."""

from __future__ import annotations

import ssl

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from p2p.identity import NodeKey, TlsContexts, anchor, leaf, node_id, peer_key, tls_contexts
from p2p.session import ConnectionFailed, TlsStream, secure
from state.errors import Rejected
from state.hashing import sha256

A, B, C = (NodeKey(bytes([number]) * 32) for number in (1, 2, 3))


def shake(server: TlsContexts, client: TlsContexts) -> tuple[TlsStream | str, TlsStream | str]:
    """Returns what each side has after the handshake and one byte from the server: its stream or the reason."""
    results: list[TlsStream | str] = ["", ""]

    async def side(place: int, stream: trio.abc.Stream, contexts: TlsContexts, *, server_side: bool) -> None:
        try:
            results[place] = await secure(stream, contexts, server_side=server_side)
        except ConnectionFailed as failure:
            results[place] = failure.reason
            await trio.aclose_forcefully(stream)

    async def main() -> None:
        left, right = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: side(0, left, server, server_side=True))
            nursery.start_soon(lambda: side(1, right, client, server_side=False))

    trio.run(main)
    return results[0], results[1]


def test_permitted_nodes_shake_hands_over_tls_1_3_and_see_each_others_node_key() -> None:
    server, client = shake(tls_contexts(A, [B.public]), tls_contexts(B, [A.public]))
    assert not isinstance(server, str)
    assert not isinstance(client, str)
    assert server.version() == "TLSv1.3"
    assert peer_key(server.getpeercert(binary_form=True)) == B.public
    assert peer_key(client.getpeercert(binary_form=True)) == A.public


def test_a_server_refuses_a_key_that_is_not_permitted() -> None:
    server, _ = shake(tls_contexts(A, [B.public]), tls_contexts(C, [A.public]))
    assert server == "tls_untrusted"


def test_a_client_refuses_a_key_that_is_not_permitted() -> None:
    _, client = shake(tls_contexts(C, [B.public]), tls_contexts(B, [A.public]))
    assert client == "tls_untrusted"


def test_nobody_is_accepted_while_nobody_is_permitted() -> None:
    server, _ = shake(tls_contexts(A, []), tls_contexts(B, [A.public]))
    assert server == "tls_untrusted"


def test_a_certificate_with_the_right_names_signed_by_another_key_is_refused() -> None:
    class Forger(NodeKey):
        def certificate(self):  # type: ignore[no-untyped-def]
            return leaf(self.public, B.id, self._private)

    forger = Forger(bytes([9]) * 32)
    assert forger.certificate().issuer == B.certificate().issuer
    server, _ = shake(tls_contexts(A, [B.public]), tls_contexts(forger, [A.public]))
    assert server == "tls_untrusted"


def test_a_leaf_that_a_permitted_node_issued_to_another_key_shows_that_other_key() -> None:
    class Lent(NodeKey):
        def certificate(self):  # type: ignore[no-untyped-def]
            return leaf(self.public, B.id, Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32))

    lent = Lent(bytes([9]) * 32)
    server, _ = shake(tls_contexts(A, [B.public]), tls_contexts(lent, [A.public]))
    assert not isinstance(server, str)
    assert peer_key(server.getpeercert(binary_form=True)) == lent.public != B.public


def test_a_client_without_certificate_is_refused() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    server, _ = shake(tls_contexts(A, [B.public]), TlsContexts(server=context, client=context))
    assert server == "tls_failed"


def test_tls_1_2_is_refused() -> None:
    contexts = tls_contexts(B, [A.public])
    contexts.client.minimum_version = ssl.TLSVersion.TLSv1_2
    contexts.client.maximum_version = ssl.TLSVersion.TLSv1_2
    server, client = shake(tls_contexts(A, [B.public]), contexts)
    assert server == "tls_failed"
    assert client in ("tls_failed", "connection_lost")


def test_no_session_can_be_resumed_and_so_skip_the_check() -> None:
    tickets: list[bool] = []

    async def main() -> None:
        left, right = trio.testing.memory_stream_pair()

        async def serve() -> None:
            stream = await secure(left, tls_contexts(A, [B.public]), server_side=True)
            await stream.send_all(b"x")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            stream = await secure(right, tls_contexts(B, [A.public]), server_side=False)
            assert await stream.receive_some(1) == b"x"
            tickets.append(stream.session.has_ticket)

    trio.run(main)
    assert tickets == [False]


def test_identity_is_a_function_of_the_key_alone() -> None:
    again = NodeKey(bytes([1]) * 32)
    assert again.certificate() == A.certificate()
    assert anchor(A.public) == anchor(again.public)
    assert A.id == node_id(A.public) == sha256(A.public).hex()
    assert repr(A) == f"NodeKey({A.id})"


def test_a_certificate_is_valid_whatever_the_clock_says() -> None:
    for certificate in (A.certificate(), anchor(A.public)):
        assert certificate.not_valid_before_utc.year == 1970
        assert certificate.not_valid_after_utc.year == 9999


def test_a_seed_of_another_size_is_refused() -> None:
    with pytest.raises(Rejected, match="seed_invalid"):
        NodeKey(bytes(31))
