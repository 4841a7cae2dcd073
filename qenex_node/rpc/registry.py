"""Method declarations: name, typed parameters, result, errors, doc; what dispatch and the OpenRPC document come from.

A declaration is plain data. Binding turns a request's params, by name or by position, into checked Python values.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from qenex_node.rpc.errors import INVALID_PARAMS, ErrorKind, RpcError
from qenex_node.rpc.params import ParamType
from state.errors import InvariantError, JsonValue, Rejected

if TYPE_CHECKING:
    from qenex_node.rpc.limits import RpcLimits
    from qenex_node.rpc.subscriptions import Session
    from qenex_node.rpc.view import NodeView

REQUIRED: Final = object()


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter. With `default` REQUIRED it must be given; otherwise null stands for the default too."""

    name: str
    type: ParamType
    doc: str
    default: Any = REQUIRED

    @property
    def required(self) -> bool:
        """Whether a request must give it."""
        return self.default is REQUIRED


@dataclass(frozen=True, slots=True)
class Result:
    """What a method answers: a name, a JSON schema, and the sentence for readers."""

    name: str
    schema: Mapping[str, JsonValue]
    doc: str


@dataclass(frozen=True, slots=True)
class Call:
    """What a method is given beside its parameters; `session` is the WebSocket that called, None over HTTP."""

    node: NodeView
    limits: RpcLimits
    session: Session | None


Bound: TypeAlias = tuple[Any, ...]
Plain: TypeAlias = Callable[..., JsonValue]
Waiting: TypeAlias = Callable[..., Awaitable[JsonValue]]
Bulk: TypeAlias = Callable[[Call, list[Bound]], Awaitable[Sequence[JsonValue | RpcError]]]


@dataclass(frozen=True, slots=True)
class Method:
    """A declared method; exactly one of three kinds of handler answers it.

    `plain` answers at once and must take no more than a few milliseconds; `waiting` may wait; `bulk` answers many calls
    of one batch together, one result or error for each, in order; it empties the list that it is given, so that nothing
    holds the parameters while it waits.
    """

    name: str
    summary: str
    params: tuple[Param, ...]
    result: Result
    errors: tuple[ErrorKind, ...] = ()
    example: tuple[JsonValue, ...] = ()
    plain: Plain | None = None
    waiting: Waiting | None = None
    bulk: Bulk | None = None

    def __post_init__(self) -> None:
        if sum(handler is not None for handler in (self.plain, self.waiting, self.bulk)) != 1:
            raise InvariantError(f"method {self.name} needs exactly one handler")
        names = [param.name for param in self.params]
        if len(set(names)) != len(names):
            raise InvariantError(f"method {self.name} names a parameter twice")
        optional = [not param.required for param in self.params]
        if optional != sorted(optional):
            raise InvariantError(f"method {self.name} has a required parameter after an optional one")

    def bind(self, given: Any) -> Bound:
        """Returns the checked values in declared order; raises RpcError(INVALID_PARAMS) naming the parameter."""
        if type(given) is dict:
            values = self._by_name(given)
        elif type(given) is list:
            if len(given) > len(self.params):
                raise _invalid(None, "too_many", f"{self.name} takes at most {len(self.params)} parameters")
            values = given + [None] * (len(self.params) - len(given))
        elif given is None:
            values = [None] * len(self.params)
        else:
            raise _invalid(None, "params_type", "params must be an array or an object")
        return tuple([_convert(param, value) for param, value in zip(self.params, values, strict=True)])

    def _by_name(self, given: dict[str, JsonValue]) -> list[JsonValue]:
        values = [given.get(param.name) for param in self.params]
        if len(given) > sum(param.name in given for param in self.params):
            known = {param.name for param in self.params}
            unknown = next(name for name in given if name not in known)
            listed = ", ".join(param.name for param in self.params) or "none"
            raise _invalid(
                unknown[:64], "unknown", f"{unknown[:64]!r} is no parameter of {self.name}; it has: {listed}"
            )
        return values


def _convert(param: Param, value: JsonValue) -> Any:
    if value is None:
        if param.default is REQUIRED:
            raise _invalid(param.name, "missing", f"parameter {param.name} is missing: {param.doc}")
        return param.default
    try:
        return param.type.parse(value)
    except Rejected as rejected:
        raise _invalid(param.name, rejected.code, f"parameter {param.name}: {rejected.message}") from None


def _invalid(param: str | None, reason: str, message: str) -> RpcError:
    return RpcError(INVALID_PARAMS, message, {"param": param}, reason=reason)


class Registry:
    """The methods of a node by name."""

    def __init__(self, methods: Iterable[Method]) -> None:
        """Takes the declarations; two of one name are a bug of ours."""
        self._methods: dict[str, Method] = {}
        for method in methods:
            self.add(method)

    def add(self, method: Method) -> None:
        """Adds a declaration; a name that is taken is a bug of ours."""
        if method.name in self._methods:
            raise InvariantError(f"method {method.name} is declared twice")
        self._methods[method.name] = method

    def __iter__(self) -> Iterator[Method]:
        return iter(self._methods.values())

    def __len__(self) -> int:
        return len(self._methods)

    def get(self, name: str) -> Method | None:
        """Returns the method of this name."""
        return self._methods.get(name)
