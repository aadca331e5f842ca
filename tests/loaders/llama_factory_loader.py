"""Loads an export with LLaMA-Factory's own loader and prints what it would train on, as JSON.

    python llama_factory.py FOLDER

Run by an interpreter that has LLaMA-Factory (`make test-exports`).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

# A CPU build of torch cannot load torchaudio; LLaMA-Factory imports it and no row holds sound.
sys.modules["torchaudio"] = ModuleType("torchaudio")
sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)
os.environ.setdefault("DISABLE_VERSION_CHECK", "1")


def _arguments(config: Path, **changes: Any) -> dict[str, Any]:
    import yaml

    arguments = {**yaml.safe_load(config.read_text()), **changes}
    return arguments | {"output_dir": tempfile.mkdtemp(), "report_to": "none"}


def load(config: Path, **changes: Any) -> dict[str, Any]:
    """Return ids and labels of one config as LLaMA-Factory prepares them."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    model, data, training, _, _ = get_train_args(_arguments(config, **changes))
    tokenizer = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(tokenizer["tokenizer"], data)
    module = get_dataset(template, model, data, training, stage="sft", **tokenizer)
    rows = module["train_dataset"]
    return {"input_ids": list(rows["input_ids"]), "labels": list(rows["labels"])}


def load_pairs(config: Path) -> dict[str, list[str]]:
    """Return what LLaMA-Factory would train on of each side, as text."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    model, data, training, _, _ = get_train_args(_arguments(config))
    tokenizer = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(tokenizer["tokenizer"], data)
    rows = get_dataset(template, model, data, training, stage="rm", **tokenizer)["train_dataset"]

    def trained(side: str) -> list[str]:
        labels = [[x for x in row if x >= 0] for row in rows[f"{side}_labels"]]
        return [tokenizer["tokenizer"].decode(row) for row in labels]

    return {side: trained(side) for side in ("chosen", "rejected")}


def main() -> None:
    """Load preferences; or ids, texts with the open template, and with a template of its own."""
    os.chdir(sys.argv[1])
    sys.path.insert(0, ".")
    from open_turn import register

    register()
    if Path("dpo.yaml").is_file():
        sys.stdout.write("\n" + json.dumps(load_pairs(Path("dpo.yaml"))) + "\n")
        return
    loaded = {
        "ids": load(Path("sft_ids.yaml")),
        "texts": load(Path("sft_texts.yaml")),
        "own template": load(Path("sft_texts.yaml"), template="chatml"),
    }
    sys.stdout.write("\n" + json.dumps(loaded) + "\n")


if __name__ == "__main__":
    main()
