"""Commands as a user types them, to be said again without what must not be seen."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

#: ``--token=…``, ``key.of.a.recipe.password=…``: what follows is shown to no one. The name of an
#: environment variable (``api_key_env``) may be.
_SECRET = re.compile(r"([\w.-]*(?:token|secret|password|api[_-]?key)=).*", re.I | re.S)


def as_typed(program: Sequence[str], given: Sequence[str]) -> str:
    """Return a command as a shell reads it; its arguments without passwords and keys."""
    from midcourse.config import without_credentials

    hidden = [
        "…" if "=" not in before and _SECRET.fullmatch(f"{before}=") else word
        for before, word in zip(["", *given], given, strict=False)
    ]
    shown = (_SECRET.sub(r"\1…", without_credentials(word)) for word in hidden)
    return shlex.join([*program, *shown])
