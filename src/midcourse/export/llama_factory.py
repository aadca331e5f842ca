"""LLaMA-Factory: rows as ids, and as texts with a template that leaves the turn open.

Its own templates all close the assistant's turn. ``open_turn.py`` registers one that does not, made
from the model's chat template, and then is `llamafactory-cli`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from midcourse.errors import MissingExtra
from midcourse.export.files import copy_file, write_json
from midcourse.export.handover import Handover, Part, conversation
from midcourse.export.settings import llama_factory_settings
from midcourse.rendering import Renderer

#: The name of the template that ``open_turn.py`` registers.
TEMPLATE = "midcourse_open_turn"


def write(handover: Handover, out: Path) -> list[Part]:
    """Write ``tokenized/``, the texts with their template, and a config for each."""
    _write_ids(handover, out / "tokenized")
    rows = [{"messages": conversation(row.user, row.response)} for row in handover.rows]
    write_json(out / "midcourse_sft.json", rows)
    write_json(out / "dataset_info.json", {"midcourse_sft": _DATASET_INFO})
    write_template(handover.renderer, out)
    # LLaMA-Factory asks for a data set also where it will read the ids alone.
    common = _settings(handover)
    write_config(out / "sft_ids.yaml", {**common, "tokenized_path": "tokenized"})
    write_config(out / "sft_texts.yaml", {**common, "template": TEMPLATE})
    losses = handover.text_losses() or ["every row gets the same ids again"]
    fidelity = "; ".join(["leaves the turn open with `open_turn.py`", *losses])
    number = f"{len(rows)} rows"
    return [
        Part(path="tokenized", what=f"{number} of ids and labels", fidelity=handover.ids_are),
        Part(path="midcourse_sft.json", what=f"{number} as texts", fidelity=fidelity),
        Part(path="dataset_info.json", what="what LLaMA-Factory must know of the texts"),
        Part(path="open_turn.py", what="registers the template, then is llamafactory-cli"),
        Part(path="template.json", what="the template's texts, from the model's chat template"),
        Part(path="sft_ids.yaml, sft_texts.yaml", what="a config for each way"),
    ]


#: Who speaks in messages as OpenAI writes them.
ROLE_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
}
_DATASET_INFO = {
    "file_name": "midcourse_sft.json",
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": ROLE_TAGS,
}


def _write_ids(handover: Handover, folder: Path) -> None:
    """Write a data set of the `datasets` library, which ``tokenized_path`` loads."""
    try:
        from datasets import Dataset, DatasetDict
    except ImportError as error:
        raise MissingExtra("datasets", "train") from error
    ids = [list(row.row.input_ids) for row in handover.rows]
    columns = {
        "input_ids": ids,
        "attention_mask": [[1] * len(row) for row in ids],
        "labels": [list(row.row.labels) for row in handover.rows],
    }
    DatasetDict({"train": Dataset.from_dict(columns)}).save_to_disk(folder)


def write_template(renderer: Renderer, out: Path) -> None:
    """Write ``template.json``, what the chat template puts around a user message, and its script.

    The script registers it without a closed turn, and then is `llamafactory-cli`.
    """
    before, after = renderer.around_user()
    given = {"name": TEMPLATE, "before_user": before, "after_user": after}
    write_json(out / "template.json", given)
    copy_file("llama_factory_open_turn.py", out / "open_turn.py")


def write_config(path: Path, values: Mapping[str, object]) -> None:
    """Write a config; YAML reads JSON values."""
    given = {"do_train": True, "dataset_dir": ".", **values}
    lines = [f"{key}: {json.dumps(value)}" for key, value in given.items()]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _settings(handover: Handover) -> dict[str, object]:
    """Return the arguments that a faithful run needs, with the recipe's numbers."""
    recipe = handover.recipe
    return {
        "stage": "sft",
        "model_name_or_path": handover.model,
        "dataset": "midcourse_sft",
        "cutoff_len": handover.max_tokens + 1,
        "train_on_prompt": False,
        "packing": False,
        **llama_factory_settings(recipe.train_sft, len(handover.rows), recipe.seed),
    }
