"""Evidence that is kept: what a block holds leaves the records, and memory stays bounded."""

from __future__ import annotations

from itertools import combinations, permutations

from cluster import Cluster, Node, block_on

from consensus import interface as io
from consensus.evidence import (
    EVIDENCE_KEPT_MAX,
    EVIDENCE_PER_VALIDATOR_MAX,
    HEIGHTS_AHEAD_MAX,
    SMALLER_PROOFS_MAX,
    contradiction,
)
from consensus.messages import Evidence, Kind
from consensus.records import decode_records
from state.types import Height


def test_evidence_that_a_block_holds_leaves_the_records_and_makes_room() -> None:
    """It is the chain's from then on: the record goes with the next write, an echo is no news, and others find room."""
    cluster = Cluster(4, byzantine="ab")
    node = cluster["c"]
    found = []
    for view in range(EVIDENCE_PER_VALIDATOR_MAX + 1):
        votes = [cluster.forger("a").vote(Kind.PREPARE, 2, view, bytes([side]) * 32) for side in (1, 2)]
        found.append(contradiction(*votes))
        node.do(io.Received(found[-1]))
    assert len(node.replica.evidence) == EVIDENCE_PER_VALIDATOR_MAX
    block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, b"1")
    certificate = cluster.certificate(Kind.COMMIT, 1, 0, block.header.hash, "abd")
    held = tuple(item.encode() for item in found[:4])
    node.chain.append((block, certificate))
    node.do(io.Committed(block.header, certificate, cluster.set_at(Height(2)), (*held, b"junk")))
    node.sent.clear()
    for item in found:
        node.do(io.Received(item))
    assert node.sent == found[-1:]
    assert set(node.replica.evidence) == set(found)
    assert decode_records(node.records).evidence == (*found[4:EVIDENCE_PER_VALIDATOR_MAX], found[-1])


def test_memory_for_evidence_stays_bounded_however_much_blocks_hold() -> None:
    cluster = Cluster(4, byzantine="ab")
    node = cluster["c"]
    block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, b"1")
    items = []
    for view in range(2 * EVIDENCE_KEPT_MAX):
        votes = [cluster.forger("b").vote(Kind.COMMIT, 1, view, bytes([side]) * 32) for side in (1, 2)]
        items.append(contradiction(*votes))
    certificate = cluster.certificate(Kind.COMMIT, 1, 0, block.header.hash, "abd")
    node.chain.append((block, certificate))
    node.do(io.Committed(block.header, certificate, cluster.set_at(Height(2)), tuple(item.encode() for item in items)))
    assert len(node.replica.evidence) == EVIDENCE_KEPT_MAX
    fresh = contradiction(*[cluster.forger("a").vote(Kind.PREPARE, 2, 0, bytes([side]) * 32) for side in (1, 2)])
    node.do(io.Received(fresh))
    assert decode_records(node.records).evidence == (fresh,)
    assert len(node.replica.evidence) == EVIDENCE_KEPT_MAX


def passed_on(node: Node) -> list:
    return [message for message in node.sent if isinstance(message, Evidence)]


def proofs(cluster: Cluster, name: str, height: int, view: int, count: int) -> list:
    """Proofs of one offence, the least bytes first: what `count` votes for as many blocks give, two by two."""
    votes = [cluster.forger(name).vote(Kind.PREPARE, height, view, bytes([side]) * 32) for side in range(1, count + 1)]
    return sorted((contradiction(*pair) for pair in combinations(votes, 2)), key=lambda item: item.encode())


def test_whatever_order_proofs_of_an_offence_come_in_all_keep_the_least_bytes() -> None:
    for order in permutations(range(3)):
        cluster = Cluster(4, byzantine="a")
        node = cluster["c"]
        of_one = proofs(cluster, "a", 1, 0, 3)
        for number in order:
            node.do(io.Received(of_one[number]))
        assert node.replica.evidence == (of_one[0],)
        assert decode_records(node.records).evidence == (of_one[0],)
        # Each that was taken was passed on: whoever kept a greater one learns of it.
        least_so_far = [of_one[min(order[: place + 1])] for place in range(3)]
        assert passed_on(node) == list(dict.fromkeys(least_so_far))


def test_smaller_proofs_of_an_offence_are_taken_a_bounded_number_of_times_and_none_once_a_block_holds_one() -> None:
    cluster = Cluster(4, byzantine="ab")
    node = cluster["c"]
    of_one = proofs(cluster, "a", 1, 0, 6)
    for item in reversed(of_one):
        node.do(io.Received(item))
    assert len(passed_on(node)) == 1 + SMALLER_PROOFS_MAX < len(of_one)
    assert node.replica.evidence == (of_one[-1 - SMALLER_PROOFS_MAX],)
    block = block_on(cluster.genesis, cluster.set_at(Height(1)), cluster.identities["a"].key, b"1")
    certificate = cluster.certificate(Kind.COMMIT, 1, 0, block.header.hash, "abd")
    greater, least = proofs(cluster, "b", 1, 0, 3)[1::-1]
    node.do(io.Received(greater))
    node.chain.append((block, certificate))
    node.do(io.Committed(block.header, certificate, cluster.set_at(Height(2)), (greater.encode(),)))
    node.sent.clear()
    node.do(io.Received(least))
    assert passed_on(node) == []
    assert greater in node.replica.evidence


def test_evidence_of_heights_far_above_takes_no_room_and_is_no_record() -> None:
    """All validators of a set may have signed it: no block could settle it, and no room would be left for good."""
    cluster = Cluster(8, byzantine="abcdefg")
    node = cluster["h"]
    far = 2 + HEIGHTS_AHEAD_MAX
    for name in "abcdefg":
        for view in range(EVIDENCE_PER_VALIDATOR_MAX):
            node.do(io.Received(proofs(cluster, name, far, view, 2)[0]))
    assert node.replica.evidence == ()
    assert passed_on(node) == []
    assert decode_records(node.records).evidence == ()
    for name in "ab":
        near = proofs(cluster, name, far - 1, 0, 2)[0]
        node.do(io.Received(near))
        assert near in decode_records(node.records).evidence
