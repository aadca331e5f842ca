"""Reads exported ``traces.jsonl`` with verifiers and prints what it made of them, as JSON.

    python traces_loader.py FOLDER

Run by an interpreter that has verifiers (`make test-exports`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import verifiers.v1 as vf
from verifiers.v1.utils.trace_store import read_episodes


def main() -> None:
    """Read the episodes of every set."""
    loaded = {}
    for file in sorted(Path(sys.argv[1]).glob("*/traces.jsonl")):
        episodes = read_episodes(file.parent, vf.WireTrace)
        first = episodes[0].traces[0]
        (branch,) = first.branches
        loaded[file.parent.name] = {
            "num_episodes": len(episodes),
            "reward": sum(episode.traces[0].reward for episode in episodes),
            "token_ids": branch.token_ids,
            "sampled": branch.sampled_mask,
            "reply": first.last_reply,
            "prompt": first.task.data.prompt_text,
            "usage": branch.num_total_tokens,
        }
    sys.stdout.write("\n" + json.dumps(loaded) + "\n")


if __name__ == "__main__":
    main()
