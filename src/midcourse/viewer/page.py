"""Writes the viewer: one HTML file that opens from disk and makes no request.

Text of models and data sets is untrusted. It travels as JSON in which nothing can end the element,
or compressed, and the page's script makes text nodes of it; KaTeX makes elements of formulas. The
page's policy allows the two scripts and the style whose hashes it names, fonts inside the page, and
nothing else: no request, no event attribute, no markup from text.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from html import escape
from importlib import resources
from string import Template
from typing import Any

from midcourse.printable import printable
from midcourse.viewer.data import Item, View, ViewedProblem
from midcourse.viewer.meanings import all_meanings
from midcourse.viewer.sharing import members, shared

_ASSETS = resources.files("midcourse.viewer") / "assets"
#: Our script, in the order in which its parts are read.
SCRIPTS = (
    "dom",
    "math",
    "prose",
    "store",
    "search",
    "state",
    "list",
    "parts",
    "tokens",
    "proposal",
    "rollout",
    "compare",
    "trace",
    "controls",
    "keys",
    "main",
)


def write_page(view: View) -> Iterator[bytes]:
    """Yield the page piece by piece: the index first, then every chunk as it is read."""
    style, typesetter, script = _style(), _typesetter(), _script()
    sources = " ".join(map(_source, (typesetter, script)))
    policy = (
        f"default-src 'none'; script-src {sources}; style-src {_source(style)}; font-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    )
    head = Template(_asset("page.html")).substitute(
        policy=policy, name=escape(printable(view.name, keep="")), style=style
    )
    yield head.encode("utf-8", "backslashreplace")
    index = json_island(_index(view))
    yield f'<script type="application/json" id="index">{index}</script>\n'.encode()
    yield f"<script>{typesetter}</script>\n<script>{script}</script>\n".encode()
    for number, bodies in enumerate(view.chunks):
        packed = base64.b64encode(gzip.compress(_json(shared(bodies)), compresslevel=6, mtime=0))
        yield b'<script type="text/plain" id="chunk-%d">%s</script>\n' % (number, packed)
    yield b"</body></html>\n"


def json_island(data: object) -> str:
    """Return JSON that nothing inside can break out of: no ``<``, ``>``, ``&``, no separators."""
    text = _json(data).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _json(data: object) -> bytes:
    """Return JSON in which half of a surrogate pair is written as its escape."""
    text = json.dumps(
        data, default=members, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    return text.encode("utf-8", "backslashreplace")


def _index(view: View) -> dict[str, object]:
    return {
        "name": view.name,
        "facts": view.facts,
        "problems": _rows(ViewedProblem, view.problems),
        "items": _rows(Item, view.items),
        "meanings": all_meanings(),
    }


def _rows(kind: type[Any], records: Sequence[object]) -> dict[str, object]:
    """Return records as rows under their names, which are written once."""
    names = [field.name for field in fields(kind)]
    return {
        "fields": names,
        "rows": [[getattr(record, name) for name in names] for record in records],
    }


def _script() -> str:
    parts = "\n".join(_asset(f"js/{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();\n'


def _style() -> str:
    faces = re.sub(r"@font-face\{[^}]*\}", _face, _asset("katex/katex.min.css"))
    return f"{faces}\n{_asset('page.css')}"


def _face(rule: re.Match[str]) -> str:
    """Return a font's rule with the font inside it; nothing if we do not have that font."""
    (name,) = re.findall(r"fonts/([\w-]+\.woff2)", rule[0])
    file = _ASSETS / "katex" / name
    if not file.is_file():
        return ""
    data = base64.b64encode(file.read_bytes()).decode()
    return re.sub(r"src:[^}]*", f'src:url(data:font/woff2;base64,{data}) format("woff2")', rule[0])


def _typesetter() -> str:
    notice = f"{_asset('katex/NOTICE')}\n{_asset('katex/LICENSE')}"
    return f"/*!\n{notice}*/\n{_asset('katex/katex.min.js')}"


def _source(text: str) -> str:
    """Return how the policy names a script or style: by its hash."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text("utf-8")
