"""llamafactory-cli with one more template: the model's own, but for an assistant's turn left open.

    python open_turn.py train sft_texts.yaml

For conversations of one user message and one reply.
"""

from __future__ import annotations

import json
from pathlib import Path

from llamafactory.cli import main
from llamafactory.data.formatter import StringFormatter
from llamafactory.data.template import register_template


def register() -> str:
    """Register the template that ``template.json`` describes; return its name."""
    given = json.loads((Path(__file__).parent / "template.json").read_text("utf-8"))
    user = [given["before_user"], "{{content}}", given["after_user"]]
    register_template(
        name=given["name"],
        format_user=StringFormatter(slots=["".join(user)]),
        format_assistant=StringFormatter(slots=["{{content}}"]),  # and no end-of-turn
        efficient_eos=False,
    )
    return str(given["name"])


if __name__ == "__main__":
    register()
    main()
