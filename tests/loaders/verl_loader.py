"""Loads an export with verl's own data sets and reward loader and prints what came out, as JSON.

    python verl_loader.py FOLDER MODEL

Run by an interpreter that has verl (`make test-exports`).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from omegaconf import OmegaConf
from transformers import AutoTokenizer
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
from verl.utils.dataset.rl_dataset import RLHFDataset


def main() -> None:
    """Load prompts, conversations and the reward."""
    folder, tokenizer = Path(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[2])
    config = OmegaConf.create({"max_prompt_length": 1024, "cache_dir": tempfile.mkdtemp()})
    data = RLHFDataset(str(folder / "rl.parquet"), tokenizer, config)
    prompts = [data[index] for index in range(len(data))]
    padded = OmegaConf.create({"pad_mode": "no_padding", "max_length": 4096})
    conversations = MultiTurnSFTDataset(str(folder / "sft.parquet"), tokenizer, padded)
    rows = [conversations[index] for index in range(len(conversations))]
    reward = {"path": str(folder / "reward.py"), "name": "compute_score"}
    score = get_custom_reward_fn(OmegaConf.create({"reward": {"custom_reward_function": reward}}))
    assert score is not None
    first = prompts[0]
    gold = first["reward_model"]["ground_truth"]
    loaded = {
        "prompts": [row["raw_prompt"] for row in prompts],
        "golds": [row["reward_model"]["ground_truth"] for row in prompts],
        "sft": [
            [
                int(token)
                for token, kept in zip(row["input_ids"], row["loss_mask"], strict=True)
                if kept
            ]
            for row in (rows[i] for i in range(len(rows)))
        ],
        "right": score("x", f"\\boxed{{{gold}}}", gold, first["extra_info"]),
        "wrong": score("x", "\\boxed{-77}", gold, first["extra_info"]),
    }
    sys.stdout.write("\n" + json.dumps(loaded) + "\n")


if __name__ == "__main__":
    main()
