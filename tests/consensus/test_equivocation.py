"""Evidence that is kept: what a block holds leaves the records, and memory stays bounded."""

from __future__ import annotations

from cluster import Cluster, block_on

from consensus import interface as io
from consensus.evidence import EVIDENCE_KEPT_MAX, EVIDENCE_PER_VALIDATOR_MAX, contradiction
from consensus.messages import Kind
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
