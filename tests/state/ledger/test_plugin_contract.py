"""A domain from outside: registered with no other file changed, it uses all that the contract offers.

The vault sets money aside for a keeper, counts deposits in its namespace, keeps a note in each account, forbids one
account to be paid, limits a transaction to three deposits, and watches that held money matches its books.
"""

import pytest

from state import slices
from state.address import to_text
from state.codec import encode
from state.errors import InvariantError, Rejected
from state.ledger import DEFAULT_PLUGINS, Environment, Ledger, Plugin
from state.ledger.account import Account
from state.ledger.fields import ADDRESS, AMOUNT, ASSET_CODE, INTEGER, TextType, record
from state.ledger.plugin import EventType, Extension, OperationType, Query, Role, Rules
from tests.state.ledger.council import Council, consensus_key
from tests.state.ledger.world import World, key, pay

KEEPER, ANN, BOB, BANNED = key(0), key(1), key(2), key(3)
MAX_DEPOSITS = 3


def deposit_apply(context, values):
    asset, amount, note = values
    account = context.sender
    if note == "forbidden":
        context.fail("note_forbidden", "choose another note")
    context.hold(account, asset, amount)
    count = (context.get("count") or 0) + 1
    context.put("count", value=count)
    context.put("this_transaction", value=(context.get("this_transaction") or 0) + 1)
    context.put("held", asset, value=(context.get("held", asset) or 0) + amount)
    context.set_extension(account, (note, count))
    context.emit("deposited", account, count)


def withdraw_apply(context, values):
    account, asset, amount = values
    context.release(account, asset, amount)
    context.put("held", asset, value=context.get("held", asset) - amount or None)
    if context.extension(account) is not None:
        context.set_extension(account, None)


def banned_is_not_paid(context, source, target, asset, amount):
    if target == BANNED.address:
        context.put("attempts", value=(context.get("attempts") or 0) + 1)
        context.fail("banned", "this account may not be paid")


def limit_deposits(context):
    if (context.get("this_transaction") or 0) > MAX_DEPOSITS:
        context.fail("deposits_too_many", "make fewer deposits at once")
    if context.get("this_transaction"):
        context.put("this_transaction", value=None)


def count_blocks(context):
    context.put("blocks", value=(context.get("blocks") or 0) + 1)
    context.put("last", value=(context.height, context.time_ms))


def note_accusation(context, accusation):
    if accusation.height == 2:
        raise Rejected("evidence_known", "not this one")
    context.put("accused", accusation.offender.key, value=(accusation.height, accusation.view))


def close_books(context):
    context.put("closed", value=(context.height, context.get("blocks"), context.validators.n))


def books_match(view):
    held = 0
    for _, before, now in view.accounts():
        held += sum(balance[1] for balance in now.balances.values())
        held -= sum(balance[1] for balance in before.balances.values()) if before else 0
    booked = 0
    for state_key, before, now in view.records():
        if state_key.startswith(encode(("vault", "held", "QNX"))[:13]):
            booked += int.from_bytes(now or b"", "big") - int.from_bytes(before or b"", "big")
    yield
    if (held != 0) != (booked != 0):
        raise InvariantError("the vault's books do not match what is held")


VAULT = Plugin(
    name="vault",
    summary="sets money aside",
    operations=(
        OperationType(
            "deposit",
            "set money aside",
            {
                1: Rules(
                    record(
                        ("asset", ASSET_CODE, "what"), ("amount", AMOUNT, "how much"), ("note", TextType(20), "why")
                    ),
                    deposit_apply,
                    units=lambda values: 5 if values[2] != "heavy" else 5000,
                )
            },
        ),
        OperationType(
            "withdraw",
            "give money back",
            {
                1: Rules(
                    record(
                        ("account", ADDRESS, "whose"), ("asset", ASSET_CODE, "what"), ("amount", AMOUNT, "how much")
                    ),
                    withdraw_apply,
                    role=Role("keeper", lambda context, values, address: address == KEEPER.address),
                )
            },
        ),
    ),
    queries=(
        Query(
            "count",
            "how many deposits there were",
            record(),
            record(("count", INTEGER, "deposits")),
            lambda reader, values: (int.from_bytes(reader.get(encode(("vault", "count"))) or b"\0", "big"),),
        ),
    ),
    events=(EventType("deposited", "money was set aside", record(("account", ADDRESS, "whose"), ("n", INTEGER, "#"))),),
    errors={
        "note_forbidden": "the note is not allowed",
        "banned": "not to be paid",
        "deposits_too_many": "over the limit",
    },
    namespace="vault",
    extension=Extension("vault", record(("note", TextType(20), "why"), ("n", INTEGER, "which deposit"))),
    genesis=lambda genesis: [(encode(("vault", "born")), encode(genesis.time_ms))],
    block_begin=count_blocks,
    evidence=note_accusation,
    before_move=banned_is_not_paid,
    transaction_end=limit_deposits,
    block_end=close_books,
    block_invariant=books_match,
)


def world(plugins=(*DEFAULT_PLUGINS, VAULT)):
    return World({ANN.address: {"QNX": 100}, KEEPER.address: {"QNX": 100}}, plugins=plugins)


def deposit(w, amount, note="rent"):
    return w.ledger.build("deposit", {"asset": "QNX", "amount": str(amount), "note": note})


def withdraw(w, amount):
    return w.ledger.build("withdraw", {"account": to_text(ANN.address), "asset": "QNX", "amount": str(amount)})


def test_held_money_stays_the_accounts_and_cannot_leave():
    w = world()
    (receipt,) = w.block(w.tx(ANN, deposit(w, 60)))
    assert [event.kind for event in receipt.events] == ["held", "deposited"]
    assert receipt.units == 1 + 5
    assert w.ledger.read_balance(w, ANN.address, "QNX") == (40, 60)
    assert w.codes(w.tx(ANN, pay(BOB.address, 41)), w.tx(ANN, pay(BOB.address, 40))) == ["balance_insufficient", "ok"]
    assert w.ledger.read_balance(w, ANN.address, "QNX") == (0, 60)


def test_a_role_is_needed_besides_the_sender():
    w = world()
    assert w.codes(w.tx(ANN, deposit(w, 60)), w.tx(ANN, withdraw(w, 10)), w.tx(KEEPER, withdraw(w, 10))) == [
        "ok",
        "not_authorised",
        "ok",
    ]
    assert w.codes(w.tx(KEEPER, withdraw(w, 51)), w.tx(KEEPER, withdraw(w, 50))) == ["held_insufficient", "ok"]
    assert w.ledger.read_balance(w, ANN.address, "QNX") == (100, 0)


def test_the_extension_stands_in_the_account():
    w = world()
    w.block(w.tx(ANN, deposit(w, 1, "one")), w.tx(ANN, deposit(w, 1, "two")))
    account = w.ledger.read_account(w, ANN.address)
    assert account.extensions == (("vault", encode(("two", 2))),)
    w.block(w.tx(KEEPER, withdraw(w, 2)))
    assert w.ledger.read_account(w, ANN.address).extensions == ()


def test_a_hook_before_moves_refuses_a_payment_and_its_traces_are_undone():
    w = world()
    assert w.codes(w.tx(ANN, pay(BANNED.address, 1))) == ["banned"]
    assert w.get(encode(("vault", "attempts"))) is None
    mint = w.ledger.build("mint", {"asset": "QNX", "to": to_text(BANNED.address), "amount": "1"})
    assert w.codes(w.tx(KEEPER, mint)) == ["banned"]


def test_a_hook_at_the_end_fails_the_whole_transaction():
    w = world()
    assert w.codes(w.tx(ANN, *[deposit(w, 1)] * 4)) == ["deposits_too_many"]
    assert w.ledger.read_balance(w, ANN.address, "QNX") == (100, 0)
    assert w.codes(w.tx(ANN, *[deposit(w, 1)] * 3)) == ["ok"]


def test_a_hook_at_the_beginning_sees_each_block():
    w = world()
    for _ in range(3):
        w.block(w.tx(ANN, pay(BOB.address, 1)))
    assert w.get(encode(("vault", "blocks"))) == encode(3)
    assert w.get(encode(("vault", "last"))) == encode((3, w.head.time_ms))
    assert w.get(encode(("vault", "born"))) == encode(w.genesis.time_ms)


def test_a_hook_at_the_end_of_a_block_comes_after_its_transactions():
    w = world()
    w.block(w.tx(ANN, pay(BOB.address, 1)))
    w.block(w.tx(ANN, pay(BOB.address, 1)))
    assert w.get(encode(("vault", "closed"))) == encode((2, 2, 4))


def test_a_hook_takes_evidence_or_refuses_it_and_then_no_other_hook_has_seen_it():
    council = Council()
    w = council.world = world()
    council.blocks(2)
    refused = council.evidence("v1", 2, 0)
    assert w.build(evidence=[refused]) is None
    council.block(evidence=[refused, council.evidence("v1", 1, 7)])
    assert w.get(encode(("vault", "accused", consensus_key(1).public.data))) == encode((1, 7))
    assert council.query("validator", name="v1")["evidence_count"] == 1


@pytest.mark.parametrize("hook", ["block_begin", "block_end"])
def test_a_hook_without_a_transaction_neither_fails_nor_tells(hook):
    def fails(context):
        context.fail("not_authorised", "nobody is there to fail")

    def tells(context):
        context.emit("deposited", ANN.address, 1)

    for act in (fails, tells):
        w = world((*DEFAULT_PLUGINS, VAULT, Plugin("rash", "acts", **{hook: act})))
        with pytest.raises(InvariantError):
            w.build(w.tx(ANN, pay(BOB.address, 1)))


def test_a_broken_invariant_halts():
    w = world()
    run = w.ledger.begin_block(w.executor.state, Environment(1, w.head.time_ms + 1))
    run.overlay.add(ANN.address, "QNX", -5, 5)
    with pytest.raises(InvariantError, match="books"):
        slices.run(run.finish())


def test_a_declared_code_is_the_receipts_and_an_undeclared_one_halts():
    w = world()
    assert w.codes(w.tx(ANN, deposit(w, 1, "forbidden"))) == ["note_forbidden"]

    def careless(context, values):
        context.fail("never_declared", "oops")

    plugin = Plugin("careless", "fails", (OperationType("slip", "fails", {1: Rules(record(), careless)}),))
    w = world((*DEFAULT_PLUGINS, plugin))
    with pytest.raises(InvariantError, match="never_declared"):
        w.build(w.tx(ANN, w.ledger.build("slip", {})))


def test_a_rejection_that_slips_out_of_rules_halts_instead_of_dropping_the_transaction():
    def leaky(context, values):
        raise Rejected("policy_invalid", "raised by a helper")

    plugin = Plugin("leaky", "leaks", (OperationType("leak", "leaks", {1: Rules(record(), leaky)}),))
    w = world((*DEFAULT_PLUGINS, plugin))
    with pytest.raises(InvariantError, match="leaky"):
        w.build(w.tx(ANN, w.ledger.build("leak", {})))


def test_a_transaction_beyond_the_greatest_weight_never_enters():
    w = world()
    tx = w.tx(ANN, deposit(w, 1, "heavy"))
    with pytest.raises(Rejected) as caught:
        w.ledger.parse(tx)
    assert caught.value.code == "transaction_too_heavy"
    assert w.build(tx) is None


def test_queries_and_receipts_have_json_forms_from_the_declarations():
    w = world()
    (receipt,) = w.block(w.tx(ANN, deposit(w, 60)))
    assert w.ledger.query(w, "vault_count", {}) == {"count": 1}
    assert w.ledger.receipt_to_json(receipt)["events"][1] == {
        "kind": "deposited",
        "fields": {"account": to_text(ANN.address), "n": 1},
    }
    schema = w.ledger.registry.operations["deposit"].versions[1].fields.schema()
    assert schema["required"] == ["asset", "amount", "note"]


@pytest.mark.parametrize(
    "plugin",
    [
        Plugin("transfer", "a name that is taken"),
        Plugin("other", "a kind that is taken", (OperationType("mint", "", {1: Rules(record(), deposit_apply)}),)),
        Plugin("other", "a namespace of the ledger", namespace="account"),
        Plugin("other", "a namespace that is taken", namespace="vault"),
        Plugin("other", "an event that is taken", events=(EventType("moved", "", record()),)),
        Plugin("other", "a tag that is taken", extension=Extension("vault", record())),
        Plugin("other", "a code that is not snake_case", errors={"No!": ""}),
        Plugin("Other", "a name that is not snake_case"),
    ],
    ids=lambda plugin: plugin.summary,
)
def test_contradicting_declarations_are_refused(plugin):
    with pytest.raises(InvariantError):
        Ledger((*DEFAULT_PLUGINS, VAULT, plugin))


def test_a_hook_of_another_domain_leaves_the_running_one_in_its_namespace():
    def pay_and_count(context, values):
        context.move(context.sender, BOB.address, "QNX", 1)
        context.put("paid", value=1)

    tally = Plugin(
        "tally", "counts", (OperationType("count", "pays", {1: Rules(record(), pay_and_count)}),), namespace="tally"
    )
    w = world((*DEFAULT_PLUGINS, VAULT, tally))
    assert w.codes(w.tx(ANN, w.ledger.build("count", {}))) == ["ok"]
    assert w.get(encode(("tally", "paid"))) == encode(1)
    assert w.get(encode(("vault", "paid"))) is None


def test_without_hooks_an_account_is_the_same_as_with_idle_ones():
    plain, idle = World({ANN.address: {"QNX": 100}}), world()
    plain.block(plain.tx(ANN, pay(BOB.address, 3)))
    idle.block(idle.tx(ANN, pay(BOB.address, 3)))
    assert plain.ledger.read_account(plain, BOB.address) == Account.holding({"QNX": 3})
    assert idle.ledger.read_account(idle, BOB.address) == Account.holding({"QNX": 3})
