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


def load(config: Path, **changes: Any) -> dict[str, Any]:
    """Return ids and labels of one config as LLaMA-Factory prepares them."""
    import yaml
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    arguments = {**yaml.safe_load(config.read_text()), **changes}
    arguments |= {"output_dir": tempfile.mkdtemp(), "report_to": "none"}
    model, data, training, _, _ = get_train_args(arguments)
    tokenizer = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(tokenizer["tokenizer"], data)
    module = get_dataset(template, model, data, training, stage="sft", **tokenizer)
    rows = module["train_dataset"]
    return {"input_ids": list(rows["input_ids"]), "labels": list(rows["labels"])}


def main() -> None:
    """Load the ids, the texts with the open template, and the texts with a template of its own."""
    os.chdir(sys.argv[1])
    sys.path.insert(0, ".")
    from open_turn import register

    register()
    loaded = {
        "ids": load(Path("sft_ids.yaml")),
        "texts": load(Path("sft_texts.yaml")),
        "own template": load(Path("sft_texts.yaml"), template="chatml"),
    }
    sys.stdout.write("\n" + json.dumps(loaded) + "\n")


if __name__ == "__main__":
    main()
