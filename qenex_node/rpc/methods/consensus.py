"""consensus_state and consensus_evidence: what the core is doing, and who was caught signing two things."""

from __future__ import annotations

from typing import Final

from qenex_node.rpc import render, schemas
from qenex_node.rpc.params import integer
from qenex_node.rpc.registry import Call, Method, Param, Result
from qenex_node.rpc.render import hexed
from state.errors import JsonValue

EVIDENCE_PAGE_MAX: Final = 100


def state(call: Call) -> JsonValue:
    """Answers consensus_state."""
    info = call.node.consensus_state()
    return {
        "height": info.height,
        "view": info.view,
        "phase": info.phase,
        "primary": info.primary,
        "proposal": None if info.proposal is None else hexed(info.proposal),
        "votes": {
            "prepare": list(info.prepares),
            "commit": list(info.commits),
            "suspect": list(info.suspects),
        },
        "floor": info.floor,
        "timers": dict(info.timers),
        "view_changes": [
            {
                "height": change.height,
                "from_view": change.from_view,
                "to_view": change.to_view,
                "time_ms": change.time_ms,
                "reasons": list(change.reasons),
            }
            for change in info.view_changes
        ],
    }


def evidence(call: Call, after: int, limit: int) -> JsonValue:
    """Answers consensus_evidence."""
    found = call.node.evidence(after, limit)
    return {"evidence": [render.evidence(info) for info in found]}


METHODS: Final = (
    Method(
        "consensus_state",
        "What the consensus core is doing: height, view, votes seen, timers, and its last view changes with reasons.",
        params=(),
        result=Result(
            "state",
            schemas.fields(
                height=schemas.NUMBER,
                view=schemas.NUMBER,
                phase=schemas.TEXT,
                primary=schemas.nullable(schemas.TEXT),
                proposal=schemas.nullable(schemas.HASH_SCHEMA),
                votes=schemas.fields(
                    prepare=schemas.array(schemas.TEXT),
                    commit=schemas.array(schemas.TEXT),
                    suspect=schemas.array(schemas.TEXT),
                ),
                floor=schemas.NUMBER,
                timers={"type": "object", "additionalProperties": {"type": "integer"}},
                view_changes=schemas.array(
                    schemas.fields(
                        height=schemas.NUMBER,
                        from_view=schemas.NUMBER,
                        to_view=schemas.NUMBER,
                        time_ms=schemas.NUMBER,
                        reasons=schemas.array(schemas.TEXT),
                    )
                ),
            ),
            "Validators are named; timers are in ms until they fire.",
        ),
        plain=state,
    ),
    Method(
        "consensus_evidence",
        "Validators that were caught signing two different messages for one height and view.",
        params=(
            Param("after", integer(0, 1 << 53), "only evidence with a higher number", 0),
            Param("limit", integer(1, EVIDENCE_PAGE_MAX), "how many at most", 20),
        ),
        result=Result(
            "evidence",
            schemas.fields(evidence=schemas.array(schemas.EVIDENCE)),
            "In order of number; `first` and `second` are the two signed messages.",
        ),
        plain=evidence,
    ),
)
