"""Makes a random tiny model of a large one's kind: its architecture, tokenizer class, template.

It can solve nothing. It stands where a recipe names Qwen3-4B, so that the recipe's whole path runs
on a CPU in seconds: Qwen3 layers with query and key norms, a byte-level BPE of the Qwen2 class, and
a ChatML template with an optional system message.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

__all__ = ["make_tiny_qwen3"]

TEMPLATE = """\
{%- if messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

_TEXT = "Solve it step by step. The answer is \\boxed{4}.\n\nSo x + 2 = 4, hence x = 2.\n\n"


def make_tiny_qwen3(folder: Path, seed: int = 0) -> None:
    """Write a model folder that transformers loads as Qwen3ForCausalLM and Qwen2Tokenizer."""
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, head_dim=16, tie_word_embeddings=True,
            max_position_embeddings=8192, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        )
    )  # fmt: skip
    model.save_pretrained(folder)


def _tokenizer() -> Qwen2Tokenizer:
    """Train a BPE of a few merges over all bytes, within Qwen's class."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Qwen2Tokenizer(
        vocab={letter: index for index, letter in enumerate(letters)}, merges=[],
        eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>"],
    )  # fmt: skip
    tokenizer = plain.train_new_from_iterator([_TEXT] * 4, vocab_size=300, show_progress=False)
    tokenizer.chat_template = TEMPLATE
    return tokenizer
