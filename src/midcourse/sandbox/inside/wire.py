"""Values between a program and its judge: rebuilt from text, never unpickled.

What the judge compares are objects of its own, of Python's plain types. An object of any other type
stays with the program and is known by a number: it cannot say that it equals what a test expects.
"""

from __future__ import annotations

import json
import socket
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

#: Said before the first line of a program: what went wrong until then is not its fault.
BEGUN = ["begun"]
#: The most that one message may hold.
MAX_BYTES = 16_000_000
#: The most that is taken out of a generator.
_MAX_ITEMS = 1_000_000
#: In so many bytes stands how long a message is, or the first part of what a sandbox is told.
SIZE_BYTES = 8
#: How values of a type are written, those of its subclasses too, as texts.
_SCALARS: dict[type[Any], Callable[[Any], Iterable[str]]] = {
    int: lambda value: [hex(int(value))],
    float: lambda value: [float(value).hex()],
    complex: lambda value: [value.real.hex(), value.imag.hex()],
    bytes: lambda value: [bytes(value).hex()],
    bytearray: lambda value: [bytes(value).hex()],
    range: lambda value: [hex(part) for part in (value.start, value.stop, value.step)],
}
_SEQUENCES: dict[str, type[Any]] = {
    "list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque,
}  # fmt: skip
#: A subclass before its base.
_MAPPINGS: dict[str, type[Any]] = {"Counter": Counter, "OrderedDict": OrderedDict, "dict": dict}


class Closed(Exception):
    """The other side is gone, says nonsense, or says too much."""


def pack(value: Any, keep: Callable[[Any], int]) -> Any:
    """Return a value as JSON holds it; `keep` gives a number to an object that cannot travel."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    for kind, write in _SCALARS.items():
        if isinstance(value, kind):
            return [kind.__name__, *write(value)]
    for name, kind in _MAPPINGS.items():
        if isinstance(value, kind):
            return [name, *([pack(k, keep), pack(v, keep)] for k, v in value.items())]
    for name, kind in _SEQUENCES.items():
        if isinstance(value, kind):
            return [name, *(pack(item, keep) for item in value)]
    if isinstance(value, Iterator):
        return ["iterator", *(pack(item, keep) for item in islice(value, _MAX_ITEMS))]
    return ["object", keep(value), type(value).__name__]


def unpack(told: Any, remote: Callable[[int, str], Any]) -> Any:
    """Return the value that was packed; `remote` stands for an object that stayed.

    Raises Closed for what `pack` does not write.
    """
    if not isinstance(told, list):
        return told
    try:
        return _unpacked(told[0], told[1:], remote)
    except (LookupError, TypeError, ValueError) as error:
        raise Closed(f"no value: {error}") from error


_READ: dict[str, Callable[..., Any]] = {
    "int": lambda text: int(text, 16),
    "float": float.fromhex,
    "complex": lambda real, imag: complex(float.fromhex(real), float.fromhex(imag)),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "range": lambda *parts: range(*(int(part, 16) for part in parts)),
}


def _unpacked(kind: str, parts: list[Any], remote: Callable[[int, str], Any]) -> Any:
    if kind in _READ:
        return _READ[kind](*parts)
    if kind == "object":
        return remote(int(parts[0]), str(parts[1]))
    if kind in _MAPPINGS:
        return _MAPPINGS[kind]({unpack(k, remote): unpack(v, remote) for k, v in parts})
    items = [unpack(part, remote) for part in parts]
    return iter(items) if kind == "iterator" else _SEQUENCES[kind](items)


def send(channel: socket.socket, message: Any) -> None:
    """Send one message. Raises Closed."""
    try:
        body = json.dumps(message).encode()
        if len(body) > MAX_BYTES:
            raise Closed("too much was said at once")
        channel.sendall(len(body).to_bytes(SIZE_BYTES, "big") + body)
    except OSError as error:
        raise Closed(str(error)) from error


def receive(channel: socket.socket) -> Any:
    """Return the next message. Raises Closed, or TimeoutError after the channel's timeout."""
    try:
        size = int.from_bytes(_exactly(channel, SIZE_BYTES), "big")
        if size > MAX_BYTES:
            raise Closed("too much was said at once")
        return json.loads(_exactly(channel, size))
    except TimeoutError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise Closed(str(error)) from error


def _exactly(channel: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = channel.recv(min(count - len(parts), 1 << 20))
        if not part:
            raise Closed("it ended")
        parts += part
    return bytes(parts)
