"""One exchange with a server that is not trusted: bounded in silence, size and what it says."""

from __future__ import annotations

import asyncio
import json
import math
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import httpx

from midcourse.engines.streamed import StreamedReply
from midcourse.printable import printable

#: The longest that a server's ``Retry-After`` makes us wait, in seconds.
MAX_WAIT_SECONDS = 30.0
#: Characters of a server's own words in a message of ours.
_WORDS = 300


class NoReply(Exception):
    """No whole reply came: the server cannot be reached, is too slow, or sends too much."""

    def __init__(self, reason: str, *, is_costly: bool) -> None:
        super().__init__(reason)
        self.is_costly = is_costly
        """Whether the attempt took a server's time, so that many more are not worth it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server sent, whatever its status."""

    status: int
    content: bytes
    headers: Mapping[str, str]

    @property
    def is_streamed(self) -> bool:
        """Whether it came in pieces; its content is that of the whole reply."""
        return _is_stream(self.headers)

    @property
    def json(self) -> Any:
        """The content. Raises ValueError if it is not JSON, or nested beyond reading."""
        try:
            return json.loads(self.content)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error

    @property
    def words(self) -> str:
        """What the server says went wrong, or how its reply begins."""
        try:
            said = _message_in(self.json)
        except ValueError:
            said = ""
        return said or self.text

    @property
    def text(self) -> str:
        """How the content begins."""
        return self.content[: 10 * _WORDS].decode("utf-8", "replace")

    @property
    def wait_seconds(self) -> float:
        """What ``Retry-After`` asks for, at most `MAX_WAIT_SECONDS`; 0 if it asks for nothing."""
        asked = self.headers.get("Retry-After", "")
        try:
            seconds = float(asked)
        except ValueError:
            seconds = _seconds_until(asked)
        return min(seconds, MAX_WAIT_SECONDS) if seconds > 0 else 0.0  # NaN is not above 0


def _message_in(reply: Any) -> str:
    """Return the message of an error as the servers we know write it; empty if there is none."""
    for name in ("error", "message", "detail", "error_message"):
        found = reply.get(name) if isinstance(reply, dict) else None
        if isinstance(found, dict):
            return _message_in(found) or json.dumps(found)
        if found:
            return found if isinstance(found, str) else json.dumps(found)
    return ""


def _seconds_until(date: str) -> float:
    """Return the seconds to an HTTP date; 0 for what is not one."""
    try:
        return (parsedate_to_datetime(date).astimezone(UTC) - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return 0.0


class Pulse:
    """When a server last showed that it works: it sent a reply, or a piece of one.

    Requests that wait in a server's queue are silent for as long as others take; what it sends to
    those is a sign of life for all.
    """

    def __init__(self) -> None:
        self._last = -math.inf

    def beat(self) -> None:
        """Take down that the server has sent something of use."""
        self._last = asyncio.get_running_loop().time()

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """Raise TimeoutError inside once there was no sign of life for so long."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer
            end = max(since, self._last) + seconds
            if end <= loop.time():
                limit.reschedule(end)
            else:
                timer = loop.call_at(end, look)

        async with asyncio.timeout(None) as limit:
            timer = loop.call_later(seconds, look)
            try:
                yield
            finally:
                timer.cancel()


async def exchange(
    client: httpx.AsyncClient,
    url: str,
    body: Any,
    *,
    seconds: float,
    max_bytes: int,
    pulse: Pulse | None = None,
) -> Reply:
    """Post `body` as JSON, or get where there is none. Raises NoReply.

    `seconds` is of silence, of the whole server if its `pulse` is given: lines of a stream are
    signs of life, a whole reply is one, bytes that drip are none. `max_bytes` is of the content as
    it is read, so that nothing small swells in memory.
    """
    method = "GET" if body is None else "POST"
    headers = {"Accept-Encoding": "identity"}
    pulse = pulse or Pulse()
    try:
        async with (
            pulse.within(seconds),
            client.stream(method, url, json=body, headers=headers) as response,
        ):
            read = _put_together if _is_stream(response.headers) else _content
            content = await read(_pieces(response, max_bytes), pulse)
            return Reply(response.status_code, content, response.headers)
    except (TimeoutError, httpx.TimeoutException) as error:
        raise NoReply(f"no whole reply, and {seconds:g} s of silence", is_costly=True) from error
    except zlib.error as error:
        raise NoReply(f"a reply that cannot be decompressed ({error})", is_costly=True) from error
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise NoReply(f"{type(error).__name__}: {error}".strip(": "), is_costly=False) from error


def _is_stream(headers: Mapping[str, str]) -> bool:
    return headers.get("Content-Type", "").lower().startswith("text/event-stream")


async def _pieces(response: httpx.Response, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the content piece by piece, unpacked no further than `max_bytes`."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip", "deflate"):
        raise NoReply(f"a reply packed as {encoding}, which was not asked for", is_costly=True)
    unpacker = None if encoding == "identity" else zlib.decompressobj(zlib.MAX_WBITS | 32)
    room = max_bytes
    async for piece in response.aiter_raw():
        unpacked = unpacker.decompress(piece, room + 1) if unpacker else piece
        room -= len(unpacked)
        if room < 0:
            raise NoReply(f"a reply of more than {max_bytes:,} bytes", is_costly=True)
        yield unpacked


async def _content(pieces: AsyncIterator[bytes], pulse: Pulse) -> bytes:
    """Return a reply that is sent whole."""
    content = bytearray()
    async for piece in pieces:
        content += piece
    pulse.beat()
    return bytes(content)


async def _put_together(pieces: AsyncIterator[bytes], pulse: Pulse) -> bytes:
    """Return the reply whose parts the events of a stream are."""
    reply, rest = StreamedReply(), b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if any(map(bytes.strip, lines)):
            pulse.beat()
        try:
            for line in lines:
                reply.add(line)
        except ValueError as error:
            raise NoReply(f"a stream that cannot be read: {error}", is_costly=True) from error
    if not reply.is_whole and "error" not in reply.fields:
        raise NoReply("a stream that ended before its reply did", is_costly=True)
    return reply.content()


@dataclass(frozen=True)
class Secrets:
    """What no message may hold: a key, and the user and password of URLs."""

    texts: tuple[str, ...]

    @classmethod
    def of(cls, urls: Sequence[str], key: str) -> Secrets:
        """Collect them, in every form in which a server may send them back."""
        found = {key, *(text for url in urls for text in _credentials(url))}
        return cls(tuple(sorted(found - {""}, key=len, reverse=True)))

    def hide(self, text: str) -> str:
        """Return `text` as one short line, inert on a terminal, without any of them."""
        for secret in self.texts:
            text = text.replace(secret, "***")
        return printable(" ".join(text.split()), keep="")[:_WORDS]


def _credentials(url: str) -> Iterator[str]:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return
    if parsed.password:
        together = f"{parsed.username}:{parsed.password}"
        yield from (parsed.userinfo.decode(), together, parsed.password, quote(parsed.password))
        yield b64encode(together.encode()).decode()
