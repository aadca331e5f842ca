"""One exchange with a server that is not trusted: bounded in time, in size and in what it says."""

from __future__ import annotations

import asyncio
import json
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import httpx

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


async def exchange(
    client: httpx.AsyncClient, url: str, body: Any, *, seconds: float, max_bytes: int
) -> Reply:
    """Post `body` as JSON, or get where there is none. Raises NoReply.

    `seconds` is for all of it, however slowly the bytes come; `max_bytes` is of the content as it
    is read, so that nothing small swells in memory.
    """
    method = "GET" if body is None else "POST"
    headers = {"Accept-Encoding": "identity"}
    try:
        async with (
            asyncio.timeout(seconds),
            client.stream(method, url, json=body, headers=headers) as response,
        ):
            content = await _content(response, max_bytes)
            return Reply(response.status_code, content, response.headers)
    except (TimeoutError, httpx.TimeoutException) as error:
        raise NoReply(f"no whole reply within {seconds:g} s", is_costly=True) from error
    except zlib.error as error:
        raise NoReply(f"a reply that cannot be decompressed ({error})", is_costly=True) from error
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise NoReply(f"{type(error).__name__}: {error}".strip(": "), is_costly=False) from error


async def _content(response: httpx.Response, max_bytes: int) -> bytes:
    """Read the content piece by piece, unpacked no further than `max_bytes`."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip", "deflate"):
        raise NoReply(f"a reply packed as {encoding}, which was not asked for", is_costly=True)
    unpacker = None if encoding == "identity" else zlib.decompressobj(zlib.MAX_WBITS | 32)
    content = bytearray()
    async for piece in response.aiter_raw():
        room = max_bytes + 1 - len(content)
        content += unpacker.decompress(piece, room) if unpacker else piece
        if len(content) > max_bytes:
            raise NoReply(f"a reply of more than {max_bytes:,} bytes", is_costly=True)
    return bytes(content)


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
