"""Whether signatures may act for an account. That they are genuine was proved before, without state.

Each account has a policy: the stored one, or as long as none is stored the one whose hash is the address, which then
travels with the authorisation (a single key need not be spelt out).
"""

from __future__ import annotations

from state.codec import encode
from state.hashing import TAG_ADDRESS, tagged
from state.keys import Policy
from state.transaction import Authorisation


def satisfied(policy: Policy, authorisation: Authorisation) -> bool:
    """Returns whether enough of the policy's keys signed. A signature of any other key spoils the authorisation:

    otherwise anyone could add one to somebody's transaction and give it another wire hash.
    """
    keys = policy.keys
    return len(authorisation.signatures) >= policy.threshold and all(key in keys for key, _ in authorisation.signatures)


def acts_from_birth(authorisation: Authorisation) -> bool:
    """Returns whether it is valid for an account without a stored policy. It depends on no state."""
    policy = authorisation.policy
    if policy is not None:
        return policy.address == authorisation.address and satisfied(policy, authorisation)
    if len(authorisation.signatures) != 1:
        return False
    # This is Policy.single(key).address without the objects: it runs for almost every transaction.
    key = authorisation.signatures[0][0]
    return bytes(tagged(TAG_ADDRESS, encode((1, (key.to_value(),))))) == authorisation.address


def acts_by_policy(authorisation: Authorisation, stored: Policy) -> bool:
    """Returns whether it is valid for an account with this stored policy. A policy brought along must be the same."""
    return (authorisation.policy is None or authorisation.policy == stored) and satisfied(stored, authorisation)
