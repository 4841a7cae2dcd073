"""Light verification: every true header is proved, no forged one is, and skipping takes nothing more than walking."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qenex_node.client.errors import VerificationFailed
from qenex_node.client.light import (
    TRUSTED_MAX,
    LightBlock,
    LightClient,
    TrustedHeader,
    TrustPeriod,
    overlap,
    prove_header,
    verify_adjacent,
    verify_skipping,
)
from state.errors import Rejected
from state.hashing import sha256
from state.types import VOTE_PREPARE
from tests.qenex_node.client.light_support import START_MS, Heights, certificate_of, drive, set_of

FOUR = frozenset(range(4))
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def turned_over(heights, every=1):
    """Sets of which one member is replaced at each `every`th height."""
    sets, members = [], list(range(4))
    for height in range(heights):
        sets.append(frozenset(members))
        if height % every == every - 1:
            members = [*members[1:], max(members) + 1]
    return sets


@st.composite
def chains(draw, heights_max=24):
    """Sets of 4 to 8 with at most one change a height, and who may be Byzantine: at most f of each set."""
    members = set(range(draw(st.integers(4, 7))))
    following = len(members)
    sets = []
    for _ in range(draw(st.integers(3, heights_max))):
        sets.append(frozenset(members))
        change = draw(st.sampled_from(["none", "add", "remove", "replace"]))
        if change in ("remove", "replace") and (len(members) > 4 or change == "replace"):
            members = members - {draw(st.sampled_from(sorted(members)))}
        if change in ("add", "replace") and len(members) < 8:
            members = members | {following}
            following += 1
    liars: set[int] = set()
    for number in draw(st.permutations(range(following))):
        if all(len((liars | {number}) & one) <= (len(one) - 1) // 3 for one in sets):
            liars.add(number)
    return Heights(sets, draw(st.integers(0, 1 << 16))), frozenset(liars)


@SLOW
@given(chains(), st.data())
def test_every_true_header_is_proved_through_any_changes_of_the_set(chain, data):
    heights, _ = chain
    light = LightClient(heights.genesis)
    for height in data.draw(st.lists(st.integers(1, len(heights.blocks)), min_size=1, max_size=4)):
        block, asked = drive(light.bisect(height), heights.at)
        assert block == heights.at(height)
        assert len(asked) == len(set(asked)) <= height
    assert all(known.hash == heights.at(known.height).header.hash for known in light._trusted[1:])


@st.composite
def forgeries(draw):
    """A chain, and a forger with the liars' keys and keys of its own, who answers each height as it likes."""
    heights, liars = draw(chains(16))
    own = frozenset(range(9000, 9008))
    honest = sorted(frozenset().union(*heights.sets) - liars)
    count = len(heights.blocks)

    def forged(height):
        numbers = draw(st.sampled_from([own, own | liars, heights.sets[height - 1]]))
        numbers = frozenset(numbers) | frozenset(draw(st.lists(st.sampled_from(honest), max_size=2)))
        signers = numbers & (own | liars)
        following = draw(st.sampled_from([numbers, heights.sets[min(height, count - 1)]]))
        return heights.forged(height, numbers, signers, following)

    return heights, forged, draw


@SLOW
@given(forgeries())
def test_a_forged_header_is_never_proved_however_the_forger_mixes_truth_and_lies(case):
    heights, forged, draw = case
    top = len(heights.blocks)
    light = LightClient(heights.genesis)
    given_blocks = {}

    def answer(height):
        if height not in given_blocks:
            lie = height == top or draw(st.booleans())
            given_blocks[height] = forged(height) if lie else heights.at(height)
        return given_blocks[height]

    with pytest.raises(VerificationFailed):
        drive(light.bisect(top), answer)


@SLOW
@given(forgeries(), st.data())
def test_skipping_takes_no_block_that_walking_height_by_height_refuses(case, data):
    heights, forged, _ = case
    count = len(heights.blocks)
    base = data.draw(st.integers(0, count - 1))
    height = data.draw(st.integers(base + 1, count))
    context = heights.genesis.context
    trusted = TrustedHeader.of_genesis(heights.genesis) if base == 0 else TrustedHeader.of(heights.at(base))
    walked = trusted
    for step in range(base + 1, height + 1):
        walked = verify_adjacent(context, walked, heights.at(step))
    for block in (heights.at(height), forged(height)):
        try:
            reached = verify_skipping(context, trusted, block)
        except VerificationFailed:
            continue
        assert reached is None or reached == walked


def test_a_set_that_never_changes_takes_one_block_and_one_that_always_does_takes_more():
    still = Heights([FOUR] * 200)
    block, asked = drive(LightClient(still.genesis).bisect(200), still.at)
    assert asked == [200]
    moving = Heights(turned_over(64, every=4))
    block, asked = drive(LightClient(moving.genesis).bisect(64), moving.at)
    assert block == moving.at(64)
    assert 4 < len(asked) < 64
    assert asked[:2] == [64, 32]


def test_one_signer_of_the_trusted_set_is_too_few_and_two_of_four_are_enough():
    heights = Heights([FOUR] * 3 + [frozenset({2, 3, 4, 5})] * 3)
    trusted = TrustedHeader.of(heights.at(1))
    context, header = heights.genesis.context, heights.at(5).header
    with_one = heights.signed(header, {2, 3, 4, 5}, {3, 4, 5})
    assert overlap(set_of(FOUR), with_one) == 1
    assert verify_skipping(context, trusted, with_one) is None
    with_two = heights.signed(header, {2, 3, 4, 5}, {2, 3, 4})
    assert verify_skipping(context, trusted, with_two).hash == header.hash


def test_more_than_f_liars_of_the_trusted_set_can_forge():
    """The check can fail: what the rule assumes is what it needs."""
    heights = Heights([FOUR] * 4)
    numbers = {0, 1, 9000, 9001}
    forged = heights.forged(4, numbers, {0, 1, 9000})
    assert drive(LightClient(heights.genesis).bisect(4), lambda height: forged)[0] == forged


def test_a_member_counts_by_its_key_under_whatever_name():
    heights = Heights([FOUR] * 4)
    block = heights.at(3)
    renamed = tuple(replace(member, name=f"x{n}") for n, member in enumerate(block.validators.validators))
    validators = type(block.validators)(renamed)
    header = replace(block.header, validators_hash=validators.hash)
    certificate = certificate_of(heights.genesis.hash, header, validators, FOUR)
    assert overlap(set_of(FOUR), LightBlock(header, certificate, validators)) == 4


def _moved(block, **changes):
    return replace(block, header=replace(block.header, **changes))


REFUSED = {
    "chain": lambda h, b: h.signed(replace(b.header, chain_id="other-1"), h.sets[2]),
    "certificate": lambda h, b: h.signed(b.header, h.sets[2], sorted(h.sets[2])[:2]),
    "header": lambda h, b: _moved(b, state_root=sha256(b"other")),
    "validators": lambda h, b: replace(b, validators=set_of(range(1, 5))),
    "height": lambda h, b: h.at(4),
}


@pytest.mark.parametrize("lie", REFUSED)
def test_a_light_block_that_is_not_whole_is_refused_by_the_name_of_the_lie(lie):
    heights = Heights([FOUR] * 4)
    with pytest.raises(VerificationFailed) as caught:
        drive(LightClient(heights.genesis).bisect(3), lambda height: REFUSED[lie](heights, heights.at(3)))
    assert caught.value.lie == lie


def test_prepares_make_nothing_final():
    heights = Heights([FOUR] * 4)
    block = heights.at(3)
    prepares = certificate_of(heights.genesis.hash, block.header, block.validators, FOUR, VOTE_PREPARE)
    with pytest.raises(VerificationFailed, match="PREPARE"):
        LightClient(heights.genesis).verify(replace(block, certificate=prepares))


def test_right_above_a_trusted_header_there_is_one_set_and_one_parent():
    heights = Heights([FOUR] * 2 + [frozenset({0, 1, 2, 4})] * 3)
    context, trusted = heights.genesis.context, TrustedHeader.of(heights.at(2))
    stays = heights.signed(replace(heights.at(3).header, validators_hash=set_of(FOUR).hash), FOUR)
    for verify in (verify_adjacent, verify_skipping):
        with pytest.raises(VerificationFailed, match="another set"):
            verify(context, trusted, stays)
    orphan = heights.signed(replace(heights.at(3).header, parent_hash=sha256(b"orphan")), heights.sets[2])
    with pytest.raises(VerificationFailed) as caught:
        verify_adjacent(context, trusted, orphan)
    assert caught.value.lie == "link"
    with pytest.raises(VerificationFailed) as caught:
        verify_adjacent(context, trusted, heights.at(4))
    assert caught.value.lie == "height"


def test_time_and_height_only_grow():
    heights = Heights([FOUR] * 6)
    context, trusted = heights.genesis.context, TrustedHeader.of(heights.at(3))
    earlier = heights.signed(replace(heights.at(5).header, time_ms=trusted.time_ms), FOUR)
    for block in (heights.at(2), heights.at(3), earlier):
        with pytest.raises(VerificationFailed):
            verify_skipping(context, trusted, block)


def test_two_certified_blocks_of_one_height_are_named_a_fork():
    heights = Heights([FOUR] * 6)
    light = LightClient(heights.genesis)
    light.verify(heights.at(5))
    other = heights.forged(5, FOUR, FOUR)
    with pytest.raises(VerificationFailed) as caught:
        light.verify(other)
    assert caught.value.lie == "fork"
    with pytest.raises(VerificationFailed) as caught:
        drive(light.bisect(5), lambda height: other)
    assert caught.value.lie == "fork"


def test_a_hash_from_a_trusted_source_is_gone_on_from():
    heights = Heights(turned_over(30))
    light = LightClient(heights.genesis)
    light.trust(heights.at(20), heights.at(20).header.hash)
    block, asked = drive(light.bisect(21), heights.at)
    assert (block, asked) == (heights.at(21), [21])
    with pytest.raises(VerificationFailed) as caught:
        LightClient(heights.genesis).trust(heights.at(20), heights.at(19).header.hash)
    assert caught.value.lie == "header"


def test_a_trusted_header_that_is_too_old_is_not_gone_on_from():
    heights = Heights([FOUR] * 9)
    now = START_MS + 20_000
    light = LightClient(heights.genesis, TrustPeriod(15_000, lambda: now))
    with pytest.raises(Rejected, match="trust_expired"):
        light.verify(heights.at(9))
    with pytest.raises(Rejected, match="trust_expired"):
        drive(light.bisect(9), heights.at)
    light.trust(heights.at(6), heights.at(6).header.hash)
    assert light.verify(heights.at(9)).height == 9


def test_what_is_remembered_stays_small_and_leads_on():
    heights = Heights([FOUR] * 40 + [frozenset({0, 1, 2, 4})] * 40)
    light = LightClient(heights.genesis)
    for height in range(1, 81):
        if light.verify(heights.at(height)) is None:
            drive(light.bisect(height), heights.at)
    assert [known.height for known in light._trusted] == [0, 40, 41, 80]
    assert light.nearest(60).height == 41
    assert drive(light.bisect(50), heights.at)[0] == heights.at(50)
    assert len(light._trusted) < TRUSTED_MAX


def test_light_blocks_keep_their_form_in_canonical_encoding():
    heights = Heights(turned_over(3))
    assert LightBlock.from_value(heights.at(2).to_value()) == heights.at(2)
    context = heights.genesis.context
    block, _ = drive(prove_header(context, TrustedHeader.of_genesis(heights.genesis), 3), heights.at)
    assert block == heights.at(3)
