"""Structured logs over the standard library's: an event and its fields, as lines for people or as JSON.

    log = Log("qenex.sync")
    log.info("fell behind", height=12, target=40)

Fields are numbers, texts, booleans and bytes (shown as hex). Private keys and passphrases refuse to be logged: a field
whose name speaks of one is masked. Everything goes to standard error, so that standard output stays the command's.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from p2p.counters import LOG_FIELDS
from state.errors import InvariantError

ROOT: Final = "qenex"
SUBJECTS_MAX: Final = 1024
VALUE_LENGTH_MAX: Final = 1000
MASK: Final = "***"
_SECRET_WORDS: Final = ("secret", "passphrase", "password", "seed", "private")
_FIELDS: Final = LOG_FIELDS
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Log:
    """A named source of events; fields are keyword arguments."""

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        """Takes the dotted name, which begins with "qenex"."""
        self._logger = logging.getLogger(name)

    def debug(self, event: str, /, **fields: object) -> None:
        """Something that only a developer wants to know."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        """Something normal that an operator wants to know."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Something that an operator should look at."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        """Something that an operator must act on."""
        self._write(logging.ERROR, event, fields)

    def exception(self, event: str, error: BaseException, /, **fields: object) -> None:
        """An unexpected error, with its trace."""
        if self._logger.isEnabledFor(logging.ERROR):
            self._logger.error(event, extra={_FIELDS: fields}, exc_info=error)

    def _write(self, level: int, event: str, fields: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={_FIELDS: fields})


class RateLimited:
    """Lets one line through for each subject and interval, and tells how many were left out between two.

    Pure: the caller passes the time in, in seconds of a steady clock. Bounded: with too many subjects it starts anew.
    """

    def __init__(self, interval_seconds: float, subjects_max: int = SUBJECTS_MAX) -> None:
        """Takes the interval in seconds and how many subjects are remembered."""
        if interval_seconds <= 0 or subjects_max < 1:
            raise InvariantError("an interval is positive and at least one subject is remembered")
        self._interval = interval_seconds
        self._subjects_max = subjects_max
        self._last: dict[str, tuple[float, int]] = {}

    def allow(self, subject: str, now: float) -> int | None:
        """Returns how many lines were left out since the last one, or None if this one is to be left out too."""
        last = self._last.get(subject)
        if last is not None and now - last[0] < self._interval:
            self._last[subject] = (last[0], last[1] + 1)
            return None
        if last is None and len(self._last) >= self._subjects_max:
            self._last.clear()
        self._last[subject] = (now, 0)
        return 0 if last is None else last[1]


def _shown(name: str, value: object) -> Any:
    """Returns a field's value as JSON knows it, masked or cut where needed."""
    if any(word in name for word in _SECRET_WORDS):
        return MASK
    if isinstance(value, bytes):
        return "0x" + value.hex()[: VALUE_LENGTH_MAX - 2]
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_shown(name, item) for item in value]
    return str(value)[:VALUE_LENGTH_MAX]


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: Mapping[str, object] = getattr(record, _FIELDS, {})
    return {name: _shown(name, value) for name, value in fields.items()}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class HumanFormat(logging.Formatter):
    """`2026-01-02T03:04:05.678Z INFO  sync: fell behind height=12 target=40`."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line; a trace, if any, follows on lines of its own."""
        source = record.name.removeprefix(ROOT + ".")
        parts = [f"{_time(record)} {record.levelname:<7} {source}: {record.getMessage()}"]
        for name, value in _fields(record).items():
            text = value if isinstance(value, str) else json.dumps(value)
            plain = text and not any(mark in text for mark in ' "=') and text.isprintable()
            parts.append(f"{name}={text if plain or not isinstance(value, str) else json.dumps(text)}")
        line = _one_line(" ".join(parts))
        return line if record.exc_info is None else f"{line}\n{self.formatException(record.exc_info)}"


class JsonFormat(logging.Formatter):
    """One JSON object a line: time, level, source, event, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        document: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "source": record.name.removeprefix(ROOT + "."),
            "event": record.getMessage(),
        }
        for name, value in _fields(record).items():
            document[f"field_{name}" if name in document else name] = value
        if record.exc_info is not None:
            document["trace"] = self.formatException(record.exc_info)
        return json.dumps(document)


def _one_line(text: str) -> str:
    """Returns the text with control characters escaped: what a peer says must not forge a line of its own."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def setup(form: str, level: str, *, node: str = "", stream: TextIO | None = None) -> Callable[[], None]:
    """Sends all of the node's logs to `stream` (standard error); returns what undoes it.

    `form` is "human" or "json", `level` as in the configuration; `node` is added to each JSON line.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormat() if form == "json" else HumanFormat())
    if node:
        handler.addFilter(_NodeName(node))
    logger = logging.getLogger(ROOT)
    logger.addHandler(handler)
    logger.propagate = False
    set_level(level)

    def undo() -> None:
        logger.removeHandler(handler)
        logger.propagate = True

    return undo


def set_level(level: str) -> None:
    """Changes the least level that is written: "debug", "info", "warning" or "error"."""
    logging.getLogger(ROOT).setLevel(_LEVELS[level])


class _NodeName(logging.Filter):
    """Adds the node's name to each record's fields."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def filter(self, record: logging.LogRecord) -> bool:
        fields = getattr(record, _FIELDS, {})
        setattr(record, _FIELDS, {"node": self._node, **fields})
        return True
