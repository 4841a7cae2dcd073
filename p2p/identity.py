"""Who a node is: its Ed25519 node key, its id, and TLS contexts that accept the permitted node keys and nothing else.

Theory of operation. X.509 wants a chain to a trust anchor; we want to pin keys. So each node key is its own
authority: the *leaf* certificate carries the node key under the name "qenex peer <id>", issued by "qenex
anchor <id>" and signed by that same node key. A verifier needs no file from anybody: from each permitted
public key it rebuilds the *anchor*, a CA certificate of fixed fields, and loads these anchors as its only
authorities. It cannot sign the anchor with a private key that it does not have, and need not: OpenSSL never
checks a trust anchor's own signature (RFC 5280 section 6.1 takes anchors as given), so a fixed unrelated key
fills that field. OpenSSL then checks the leaf's signature with the permitted key, and the handshake's own
signature with the leaf's key.

A leaf is only as good as its issuer, and a permitted node could issue a leaf for some other key: after the
handshake the caller therefore compares `peer_key()` with the permitted set itself. Validity runs from 1970 to
the end of X.509's time, so that no clock matters. Session tickets are off: a resumed session would skip the
check.

Knows nothing of sockets, frames or roles.
"""

from __future__ import annotations

import secrets
import ssl
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final, NewType

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from p2p.limits import PERMITTED_MAX
from state.errors import Rejected
from state.hashing import sha256

NodeId = NewType("NodeId", str)
"""SHA-256 of the node's 32-byte public key, as 64 lower-case hex digits."""

NODE_KEY_BYTES: Final = 32
_VALID_FROM: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - X.509 times are UTC by definition
_VALID_UNTIL: Final = datetime(9999, 12, 31, 23, 59, 59)  # noqa: DTZ001 - RFC 5280 4.1.2.5: no end of validity
_ANCHOR_FILLER: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))


def node_id(public_key: bytes) -> NodeId:
    """Returns the id of the node with this 32-byte Ed25519 public key: its SHA-256 in hex."""
    return NodeId(sha256(public_key).hex())


class NodeKey:
    """A node's private Ed25519 key and the certificate made from it; nothing else of the node is in it."""

    def __init__(self, seed: bytes) -> None:
        """Takes the key's 32-byte seed; raises Rejected("seed_invalid")."""
        if len(seed) != NODE_KEY_BYTES:
            raise Rejected("seed_invalid", f"a node key's seed has {NODE_KEY_BYTES} bytes, not {len(seed)}")
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public: Final = self._private.public_key().public_bytes_raw()
        self.id: Final = node_id(self.public)

    @classmethod
    def generate(cls) -> NodeKey:
        """Returns a new key from the operating system's randomness."""
        return cls(secrets.token_bytes(NODE_KEY_BYTES))

    def certificate(self) -> x509.Certificate:
        """Returns this node's leaf certificate, the same bytes each time."""
        return leaf(self.public, self.id, self._private)

    def load_into(self, context: ssl.SSLContext) -> None:
        """Loads leaf and key into a TLS context.

        The standard library takes them from a file only: the key lies in it encrypted under a passphrase that is
        never written, and the file is gone when this returns.
        """
        passphrase = secrets.token_hex(32)
        pem = self._private.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase.encode())
        )
        with tempfile.NamedTemporaryFile(prefix="qenex-tls-") as file:
            file.write(pem + self.certificate().public_bytes(Encoding.PEM))
            file.flush()
            context.load_cert_chain(file.name, password=passphrase)

    def __repr__(self) -> str:
        return f"NodeKey({self.id})"


def leaf(public_key: bytes, issuer: NodeId, issuer_key: Ed25519PrivateKey) -> x509.Certificate:
    """Returns the leaf certificate for `public_key` under the anchor name of `issuer`, signed by `issuer_key`."""
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    return (
        _builder(public_key, subject=f"qenex peer {node_id(public_key)[:40]}", issuer=_anchor_name(issuer), serial=2)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(usages, critical=False)
        .sign(issuer_key, algorithm=None)
    )


@lru_cache(maxsize=2 * PERMITTED_MAX)
def anchor(public_key: bytes) -> x509.Certificate:
    """Returns the trust anchor for a permitted 32-byte public key, the same bytes on every machine."""
    name = _anchor_name(node_id(public_key))
    return (
        _builder(public_key, subject=name, issuer=name, serial=1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(_ANCHOR_FILLER, algorithm=None)
    )


def _anchor_name(issuer: NodeId) -> str:
    return f"qenex anchor {issuer[:40]}"


def _builder(public_key: bytes, *, subject: str, issuer: str, serial: int) -> x509.CertificateBuilder:
    key = Ed25519PublicKey.from_public_bytes(public_key)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(_VALID_FROM)
        .not_valid_after(_VALID_UNTIL)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True, slots=True)
class TlsContexts:
    """The two TLS contexts of a node for one set of permitted keys."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def tls_contexts(key: NodeKey, permitted: Iterable[bytes]) -> TlsContexts:
    """Returns contexts that speak TLS 1.3 only, present `key`, and require a leaf of one of the `permitted` keys.

    An authority cannot be taken out of a context again: make new ones whenever the permitted keys change.
    """
    anchors = b"".join(anchor(public_key).public_bytes(Encoding.DER) for public_key in permitted)
    return TlsContexts(
        server=_context(ssl.PROTOCOL_TLS_SERVER, key, anchors), client=_context(ssl.PROTOCOL_TLS_CLIENT, key, anchors)
    )


def _context(protocol: int, key: NodeKey, anchors: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    if anchors:
        context.load_verify_locations(cadata=anchors)
    key.load_into(context)
    return context


def peer_key(certificate_der: bytes | None) -> bytes | None:
    """Returns the 32-byte Ed25519 key in the peer's leaf certificate, or None if it holds no such key."""
    if certificate_der is None:
        return None
    try:
        key = x509.load_der_x509_certificate(certificate_der).public_key()
    except (ValueError, TypeError):
        return None
    return key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else None
