"""Who signs for which account: one key, or some of the keys of a k-of-n policy."""

from __future__ import annotations

from dataclasses import dataclass

from state.errors import Rejected
from state.keys import Policy, PublicKey, SigningKey
from state.types import Address


@dataclass(frozen=True)
class Signer:
    """An account with private keys that may act for it.

    `policy` is the account's policy if it has more than one key; None stands for one key. With `stored` the chain has
    the policy (it was changed by set_policy), so it need not travel with the authorisation.
    """

    address: Address
    keys: tuple[SigningKey, ...]
    policy: Policy | None = None
    stored: bool = False

    @classmethod
    def single(cls, key: SigningKey) -> Signer:
        """Returns the signer of the account that this one key was born with."""
        return cls(key.address, (key,))

    @classmethod
    def shared(cls, policy: Policy, keys: tuple[SigningKey, ...]) -> Signer:
        """Returns the signer of the account born with this policy; raises Rejected("key_not_in_policy")."""
        return cls(policy.address, _checked(policy, keys), policy)

    @classmethod
    def rotated(cls, address: Address, policy: Policy, keys: tuple[SigningKey, ...]) -> Signer:
        """Returns the signer of an account whose policy was changed to this one."""
        return cls(address, _checked(policy, keys), policy, stored=True)

    @property
    def travelling(self) -> Policy | None:
        """The policy that must stand in the authorisation."""
        return None if self.stored or self.policy is None or len(self.policy.keys) == 1 else self.policy


def _checked(policy: Policy, keys: tuple[SigningKey, ...]) -> tuple[SigningKey, ...]:
    for key in keys:
        if key.public not in policy.keys:
            raise Rejected("key_not_in_policy", f"key {short(key.public)} is none of the account's keys")
    return keys


def signer_of(who: Signer | SigningKey) -> Signer:
    """Returns the signer; a key alone stands for its own account."""
    return who if isinstance(who, Signer) else Signer.single(who)


def short(key: PublicKey) -> str:
    """Returns the beginning of a public key, for messages to people."""
    return f"0x{key.data[:6].hex()}..."
