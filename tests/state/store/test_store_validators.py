"""A store whose validators come and go: which set it names for each height, and that the audit follows the changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from snapshot_support import replay, restore, snapshot_of_chain
from store_support import LEDGER, Chain, certify, contents, genesis_of, person

from state import slices
from state.block import vote_preimage
from state.codec import encode
from state.errors import Rejected
from state.evidence import EquivocationProof, Offence, SignedHash
from state.hashing import ZERO_HASH, sha256
from state.ledger.domains.governance.possession import prove_possession
from state.ledger.validators import VALIDATORS_KEY, rule_key
from state.store import Store
from state.store.database import Database
from state.store.errors import Damaged
from state.store.keys import META_GARBAGE, STATE, name_of, seal
from state.store.rollback import rollback
from state.store.verify import verify
from state.transaction import Transaction
from state.types import Height, Validator, ValidatorSet, View


def operation(chain: Chain, by: int, kind: str, **fields: object) -> Transaction:
    """A transaction of the operator of v<by>."""
    key = person(9000 + by)
    account = LEDGER.read_account(chain.store, key.address)
    made = LEDGER.build(kind, {"by": f"v{by}", **fields})  # type: ignore[dict-item]
    return chain.sign(key, made, 0 if account is None else account.sequence(0))


def proposal(chain: Chain, added: int) -> Transaction:
    """v0 proposes to add v<added>."""
    keys = (person(9000 + added), person(9500 + added))
    proofs = prove_possession(chain.genesis.hash, f"v{added}", *keys)
    shown = {"key": keys[0].public.data, "node_key": keys[1].public.data}
    shown |= {"key_proof": proofs[0], "node_key_proof": proofs[1]}
    return operation(
        chain,
        0,
        "governance_propose",
        change="add",
        validator=f"v{added}",
        from_height=0,
        expires_ms=0,
        **{name: "0x" + data.hex() for name, data in shown.items()},
    )


def add(chain: Chain, number: int, added: int, voters: tuple[int, ...]) -> None:
    """Two blocks: v0 proposes, and others approve the proposal with this number."""
    chain.block(proposal(chain, added))
    chain.block(*(operation(chain, voter, "governance_vote", proposal=number, approve=True) for voter in voters))


def evidence(chain: Chain, number: int, height: int) -> bytes:
    """Proof that v<number> signed two blocks of a height."""
    validators = chain.store.validators_at(height)
    index = [validator.name for validator in validators.validators].index(f"v{number}")
    halves = [
        SignedHash(
            block_hash,
            ZERO_HASH,
            person(9000 + number).sign(vote_preimage(chain.genesis.hash, validators.hash, 2, height, 0, block_hash)),
        )
        for block_hash in sorted((sha256(b"one"), sha256(b"two")))
    ]
    return EquivocationProof(Offence.COMMIT, Height(height), View(0), index, halves[0], halves[1]).encode()


def opened(chain: Chain) -> Chain:
    """A closed chain, open again."""
    return Chain(chain.path, chain.genesis, new=False)


def made(path: Path, **options: object) -> Chain:
    """v4 is in force from 3 on, v5 from 5 on, and v2 is suspended from 6 on."""
    chain = Chain(path, genesis_of(range(20)), **options)
    add(chain, 1, 4, (1, 2))
    add(chain, 2, 5, (1, 2, 3))
    chain.commit(chain.execute(evidence=[evidence(chain, 2, 3)]))
    chain.block()
    return chain


def sizes(store: Store) -> list[int]:
    return [store.validators_at(height).n for height in range(store.head.height + 2)]


def test_the_store_names_the_set_of_each_height_and_since_when_the_last_rules(tmp_path: Path) -> None:
    chain = made(tmp_path / "db")
    expected = [4, 4, 4, 5, 5, 6, 5, 5]
    assert sizes(chain.store) == expected
    for again in (False, True):
        store = chain.reopen().store if again else chain.store
        assert sizes(store) == expected
        assert (store.validators.n, store.validators_since) == (5, 6)
        for height in range(1, store.head.height + 1):
            header = store.header_at(height)
            assert header is not None
            assert store.validators_at(height).hash == header.validators_hash
            assert store.validators_at(height + 1).hash == header.next_validators_hash
        with pytest.raises(Rejected, match="height_unknown"):
            store.validators_at(store.head.height + 2)
    chain.store.close()


def test_the_audit_follows_the_sets_and_proves_the_evidence(tmp_path: Path) -> None:
    chain = made(tmp_path / "db", keep_heights=3)
    slices.run(chain.store.prune())
    chain.store.close()
    report = verify(chain.path, chain.genesis, LEDGER)
    assert (report.ok, report.findings, report.height) == (True, [], 6)


def test_the_audit_names_a_certificate_of_the_wrong_set(tmp_path: Path) -> None:
    chain = made(tmp_path / "db")
    header = chain.store.header_at(5)
    assert header is not None
    chain.store.close()
    database = Database.open(chain.path)
    batch = database.batch()
    validators = ValidatorSet.of(
        Validator(f"v{n}", person(9000 + n).public.data, person(9500 + n).public.data) for n in range(4)
    )
    key = b"C" + (5).to_bytes(8, "big")
    certificate = certify(chain.genesis, header, validators=validators)
    batch.put(key, seal(key, encode((header.hash, certificate.to_value()))))
    database.write(batch)
    database.close()
    report = verify(chain.path, chain.genesis, LEDGER)
    assert [finding.record for finding in report.findings] == ["block of height 5"]


@pytest.mark.parametrize("what", ["set", "since", "history", "former"])
def test_a_set_that_is_not_what_the_chain_says_is_named(tmp_path: Path, what: str) -> None:
    chain = made(tmp_path / "db")
    validators, others = chain.store.validators, chain.store.validators_at(3)
    chain.store.close()
    key, value = {
        "set": (VALIDATORS_KEY, (6, others.to_value())),
        "since": (VALIDATORS_KEY, (5, validators.to_value())),
        "history": (rule_key(6), (5, others.to_value())),
        "former": (rule_key(5), (4, validators.to_value())),
    }[what]
    database = Database.open(chain.path)
    batch = database.batch()
    batch.put(STATE + key, seal(STATE + key, encode(value)))
    database.write(batch)
    database.close()
    if what == "former":
        # Nothing needs it to open; the audit finds it.
        opened(chain).store.close()
    else:
        with pytest.raises(Damaged):
            Store.open(chain.path, chain.genesis, LEDGER, chain.options)
    report = verify(chain.path, chain.genesis, LEDGER)
    assert name_of(STATE + key) in [finding.record for finding in report.findings]


def test_a_change_of_the_set_is_taken_back_with_its_block(tmp_path: Path) -> None:
    chain = Chain(tmp_path / "db")
    chain.store.create_votes(b"key")
    chain.block(proposal(chain, 4))
    chain.store.close()
    before = contents(chain.path)
    chain = opened(chain)
    approve = [operation(chain, voter, "governance_vote", proposal=1, approve=True) for voter in (1, 2)]
    executed = chain.block(*approve)
    assert chain.store.validators.n == 5
    chain.store.close()
    rollback(chain.path, chain.genesis, LEDGER, lambda records, height: (), chain.options)
    after = contents(chain.path)
    own = {STATE[:1]}
    assert {k: v for k, v in after.items() if k[:1] in own} == {k: v for k, v in before.items() if k[:1] in own}
    assert META_GARBAGE in after
    chain = opened(chain)
    assert (chain.store.validators.n, chain.store.validators_since) == (4, 1)
    chain.commit(chain.execute(*approve))
    assert chain.store.head.hash == executed.block.header.hash
    assert (chain.store.validators.n, chain.store.validators_since) == (5, 3)
    chain.store.close()


def test_a_chain_that_begins_with_a_snapshot_knows_all_former_sets(tmp_path: Path) -> None:
    chain = made(tmp_path / "full")
    snapshot = snapshot_of_chain(chain, tmp_path / "snapshots")
    empty = Chain(tmp_path / "restored", chain.genesis)
    empty.store.close()
    restored = restore(snapshot, empty)
    assert sizes(restored.store) == sizes(chain.store)
    assert restored.store.validators_since == 6
    # Evidence against a set of which no header is here is proved all the same.
    item = evidence(chain, 1, 2)
    chain.commit(chain.execute(evidence=[item]))
    replay(chain, restored)
    assert restored.store.head.hash == chain.store.head.hash
    restored.store.close()
    shutil.rmtree(snapshot.path)
    assert verify(restored.path, chain.genesis, LEDGER).findings == []
