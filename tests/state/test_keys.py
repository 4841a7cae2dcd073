"""Keys and policies: registered schemes, deterministic addresses, and signatures that hold for one message."""

import pytest

from state.errors import DecodeError, Rejected
from state.hashing import TAG_ADDRESS, sha256
from state.keys import (
    ED25519,
    ML_DSA_65,
    ML_DSA_87,
    SCHEMES,
    Policy,
    PublicKey,
    SigningKey,
    scheme_named,
    verify_ed25519,
    verify_signature,
)

ALL = [ED25519, ML_DSA_65, ML_DSA_87]


def key(number, scheme=ED25519):
    return SigningKey(scheme, sha256(bytes([number])))


@pytest.mark.parametrize("scheme", ALL)
def test_a_signature_holds_for_its_key_and_message_alone(scheme):
    signer = key(1, scheme)
    signature = signer.sign(b"message")
    assert len(signature) == SCHEMES[scheme].signature_bytes
    assert len(signer.public.data) == SCHEMES[scheme].key_bytes
    assert verify_signature(signer.public, b"message", signature)
    assert not verify_signature(signer.public, b"massage", signature)
    assert not verify_signature(key(2, scheme).public, b"message", signature)
    assert not verify_signature(signer.public, b"message", signature[:-1] + bytes([signature[-1] ^ 1]))
    assert not verify_signature(signer.public, b"message", signature[:-1])


@pytest.mark.parametrize("scheme", ALL)
def test_a_seed_gives_the_same_key_each_time(scheme):
    assert key(1, scheme).public == key(1, scheme).public
    assert key(1, scheme).address != key(2, scheme).address
    assert SigningKey.generate(scheme).public != SigningKey.generate(scheme).public


def test_ed25519_follows_rfc_8032():
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    signer = SigningKey(ED25519, seed)
    assert signer.public.data.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert signer.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155")


@pytest.mark.parametrize(
    "public",
    [
        bytes(32),
        bytes([1]) + bytes(31),
        bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        bytes([255]) * 32,
    ],
)
def test_keys_of_small_order_and_outside_the_curve_sign_nothing(public):
    assert not verify_ed25519(public, b"m", bytes(64))
    assert not verify_ed25519(public, b"m", public + bytes(32))
    assert not verify_ed25519(public, b"m", bytes([1]) + bytes(63))


def test_a_signature_with_a_scalar_beyond_the_order_is_refused():
    order = 2**252 + 27742317777372353535851937790883648493
    signature = key(1).sign(b"m")
    more = (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    assert not verify_ed25519(key(1).public.data, b"m", signature[:32] + more)


def test_an_unknown_scheme_is_refused_by_name():
    for call in (
        lambda: SigningKey(9, bytes(32)),
        lambda: PublicKey.from_value((9, bytes(32))),
        lambda: PublicKey.from_value((True, bytes(32))),
        lambda: scheme_named("rsa"),
    ):
        with pytest.raises(Rejected) as caught:
            call()
        assert caught.value.code == "scheme_unknown"


@pytest.mark.parametrize("value", [(1, bytes(31)), (2, bytes(32)), (1, "x" * 32), (1,), None])
def test_a_key_of_another_shape_is_malformed(value):
    with pytest.raises(DecodeError):
        PublicKey.from_value(value)


def test_a_seed_has_32_bytes():
    with pytest.raises(Rejected):
        SigningKey(ED25519, bytes(31))


def test_an_address_is_the_hash_of_the_policy():
    single = Policy.single(key(1).public)
    data = b"\x92\x01\x91\x92\x01\xc4\x20" + key(1).public.data
    assert single.address == sha256(TAG_ADDRESS + data) == key(1).address


def test_a_policys_address_does_not_depend_on_the_order_of_its_keys():
    keys = (key(1).public, key(2).public, key(3, ML_DSA_65).public)
    assert Policy.of(2, keys).address == Policy.of(2, keys[::-1]).address
    assert Policy.of(2, keys).address != Policy.of(3, keys).address
    assert Policy.from_value(Policy.of(2, keys).to_value()) == Policy.of(2, keys)


def ordered(*numbers):
    return tuple(sorted(key(number).public for number in numbers))


@pytest.mark.parametrize(
    ("threshold", "keys"),
    [
        (0, ordered(1)),
        (2, ordered(1)),
        (1, ()),
        (1, ordered(1, 2)[::-1]),
        (1, (key(1).public, key(1).public)),
        (1, ordered(*range(17))),
    ],
)
def test_an_impossible_policy_is_refused(threshold, keys):
    with pytest.raises(Rejected):
        Policy.from_value((threshold, tuple(k.to_value() for k in keys)))


def test_a_private_key_does_not_show_its_seed():
    assert key(1).seed.hex() not in repr(key(1))
