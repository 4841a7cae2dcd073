"""From a bare stream to an accepted peer: the TLS handshake and the greeting, each within its time limit.

A TLS 1.3 client believes in success before the server has looked at its certificate, so nothing counts before both
greetings are acknowledged. Every way to fail ends in `ConnectionFailed` with a reason out of
`counters.CLOSE_REASONS`, or, where it is we who refuse, in `Rejected` with such a code, for the caller to pass on
with `refuse`.
"""

from __future__ import annotations

import ssl
from typing import TypeAlias

import trio

from p2p.hello import Greeting, decode_reject, encode_reject
from p2p.identity import TlsContexts
from p2p.limits import CLOSE_SECONDS, HELLO_SECONDS, READ_BYTES, TLS_SECONDS
from p2p.wire import Frame, Framer, Kind, encode_frame

TlsStream: TypeAlias = trio.SSLStream[trio.abc.Stream]


class ConnectionFailed(Exception):
    """A connection that ended before it was a peer: the reason's name, and detail for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


async def secure(stream: trio.abc.Stream, contexts: TlsContexts, *, server_side: bool) -> TlsStream:
    """Returns the TLS stream over `stream` after the handshake; raises ConnectionFailed."""
    context = contexts.server if server_side else contexts.client
    tls: TlsStream = trio.SSLStream(stream, context, server_side=server_side, https_compatible=True)
    try:
        with trio.fail_after(TLS_SECONDS):
            await tls.do_handshake()
    except trio.TooSlowError:
        raise ConnectionFailed("tls_timeout", f"no TLS handshake within {TLS_SECONDS:g} s") from None
    except trio.BrokenResourceError as error:
        cause = error.__cause__
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise ConnectionFailed("tls_untrusted", "its key is not permitted here") from error
        if isinstance(cause, ssl.SSLError):
            raise ConnectionFailed("tls_failed", str(cause.reason or cause)) from error
        raise ConnectionFailed("connection_lost", "during the TLS handshake") from error
    return tls


async def greet(stream: TlsStream, framer: Framer, greeting: Greeting) -> None:
    """Exchanges HELLO and HELLO_ACK both ways; raises ConnectionFailed, or Rejected if it is we who say no."""
    try:
        with trio.fail_after(HELLO_SECONDS):
            await stream.send_all(encode_frame(Kind.HELLO, greeting.hello()))
            while not greeting.accepted:
                frame = await _receive(stream, framer)
                if frame.kind is Kind.REJECT:
                    code, message = decode_reject(frame.body)
                    raise ConnectionFailed("rejected_by_peer", f"{code}: {message}")
                if frame.kind is Kind.HELLO:
                    await stream.send_all(encode_frame(Kind.HELLO_ACK, greeting.receive_hello(frame.body)))
                else:
                    greeting.receive_ack(frame.body)
    except trio.TooSlowError:
        raise ConnectionFailed("hello_timeout", f"no acknowledged HELLO within {HELLO_SECONDS:g} s") from None
    except trio.BrokenResourceError as error:
        raise ConnectionFailed("connection_lost", "during the greeting; it may not permit our key") from error


async def _receive(stream: TlsStream, framer: Framer) -> Frame:
    while (frame := framer.next_frame()) is None:
        data = await stream.receive_some(READ_BYTES)
        if not data:
            raise ConnectionFailed("closed_by_peer", "during the greeting; it may not permit our key")
        framer.feed(data)
    return frame


async def refuse(stream: TlsStream, code: str, message: str) -> None:
    """Tells the other why it is refused and waits, briefly, until it has hung up.

    Closing at once, with bytes of the other's unread, would make TCP discard what was just written.
    """
    with trio.move_on_after(CLOSE_SECONDS):
        try:
            await stream.send_all(encode_frame(Kind.REJECT, encode_reject(code, message)))
            while await stream.receive_some(READ_BYTES):
                pass
        except trio.BrokenResourceError:
            pass
