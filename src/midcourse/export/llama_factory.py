"""LLaMA-Factory: rows as ids, and as texts with a template that leaves the turn open.

Its own templates all close the assistant's turn. ``open_turn.py`` registers one that does not, made
from the model's chat template, and then is `llamafactory-cli`.
"""

from __future__ import annotations

import json
from pathlib import Path

from midcourse.errors import MissingExtra
from midcourse.export.files import copy_file, write_json
from midcourse.export.handover import FAITHFUL, Handover, Part, conversation
from midcourse.rendering import Renderer

_TEMPLATE = "midcourse_open_turn"


def write(handover: Handover, out: Path) -> list[Part]:
    """Write ``tokenized/``, the texts with their template, and a config for each."""
    _write_ids(handover, out / "tokenized")
    rows = [{"messages": conversation(row.user, row.response)} for row in handover.rows]
    write_json(out / "midcourse_sft.json", rows)
    write_json(out / "dataset_info.json", {"midcourse_sft": _DATASET_INFO})
    write_json(out / "template.json", _template(handover.renderer))
    copy_file("llama_factory_open_turn.py", out / "open_turn.py")
    data = {"dataset_dir": ".", "dataset": "midcourse_sft"}
    # LLaMA-Factory asks for a data set also where it will read the ids alone.
    _write_config(out / "sft_ids.yaml", handover, {**data, "tokenized_path": "tokenized"})
    _write_config(out / "sft_texts.yaml", handover, {**data, "template": _TEMPLATE})
    losses = handover.text_losses() or ["every row gets the same ids again"]
    fidelity = "; ".join(["leaves the turn open with `open_turn.py`", *losses])
    number = f"{len(rows)} rows"
    return [
        Part(path="tokenized", what=f"{number} of ids and labels", fidelity=FAITHFUL),
        Part(path="midcourse_sft.json", what=f"{number} as texts", fidelity=fidelity),
        Part(path="dataset_info.json", what="what LLaMA-Factory must know of the texts"),
        Part(path="open_turn.py", what="registers the template, then is llamafactory-cli"),
        Part(path="template.json", what="the template's texts, from the model's chat template"),
        Part(path="sft_ids.yaml, sft_texts.yaml", what="a config for each way"),
    ]


_DATASET_INFO = {
    "file_name": "midcourse_sft.json",
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
    },
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


def _template(renderer: Renderer) -> dict[str, str]:
    """Return what the chat template puts before and after a single user message."""
    before, after = renderer.around_user()
    return {"name": _TEMPLATE, "before_user": before, "after_user": after}


def _write_config(path: Path, handover: Handover, data: dict[str, str]) -> None:
    """Write the arguments that a faithful run needs; YAML reads JSON values."""
    values: dict[str, object] = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": handover.model,
        **data,
        "cutoff_len": handover.max_tokens + 1,
        "train_on_prompt": False,
        "packing": False,
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in values.items()]
    path.write_text("\n".join(lines) + "\n", "utf-8")
