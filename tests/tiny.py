"""Makes a random tiny model of a large one's kind: its architecture, tokenizer class, template.

It can solve nothing. It stands where a recipe names Qwen3-4B, so that the recipe's whole path runs
on a CPU in seconds: Qwen3 layers with query and key norms, a byte-level BPE of the Qwen2 class, and
a ChatML template with an optional system message.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Qwen2Tokenizer,
)

from midcourse.engines.bundled import base_folder

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


#: What an architecture wants beyond the sizes that all have. Heads of 32 are the least that vLLM's
#: attention takes on a CPU.
_SIZES: dict[str, dict[str, Any]] = {
    "qwen3": {"head_dim": 32, "num_key_value_heads": 1},
    "qwen3_moe": {
        "head_dim": 32, "num_key_value_heads": 1, "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
    },
    "deepseek_v3": {
        "num_key_value_heads": 2, "kv_lora_rank": 32, "q_lora_rank": 32, "qk_rope_head_dim": 32,
        "qk_nope_head_dim": 32, "v_head_dim": 32, "n_routed_experts": 4, "n_group": 1,
        "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "first_k_dense_replace": 1, "n_shared_experts": 1,
    },
}  # fmt: skip


def make_tiny_qwen3(folder: Path, seed: int = 0) -> None:
    """Write a model folder that transformers loads as Qwen3ForCausalLM and Qwen2Tokenizer."""
    make_tiny(folder, "qwen3", seed)


def make_tiny(folder: Path, architecture: str, seed: int = 0, std: float = 0.02) -> None:
    """Write a random model of an architecture that the paper's recipes name, with its tokenizer.

    Weights of a small deviation say nearly the same whatever they read.
    """
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, tie_word_embeddings=architecture == "qwen3",
        max_position_embeddings=8192, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None, initializer_range=std,
        **_SIZES[architecture],
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def make_guesser(folder: Path) -> None:
    """Write a tiny model that answers whatever it reads with a box around a digit, by chance.

    Each token follows from the last one alone: embeddings are unit vectors, layers add nothing,
    and the output matrix holds what may come next. So a tenth of all replies is right.
    """
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    ids = tokenizer.convert_tokens_to_ids([*"\\boxed{", *"0123456789", "}"])
    box, digits, close = ids[:7], ids[7:17], ids[17]
    config = AutoConfig.for_model(
        "qwen3",
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, tie_word_embeddings=False, max_position_embeddings=8192,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None, **_SIZES["qwen3"],
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    following = {box[i]: [box[i + 1]] for i in range(6)} | {box[6]: digits}
    following |= {digit: [close] for digit in digits} | {close: [tokenizer.eos_token_id]}
    states = {token: number for number, token in enumerate(following, start=1)}
    with torch.no_grad():
        layer = model.model.layers[0]
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        embedding, output = model.model.embed_tokens.weight, model.lm_head.weight
        embedding.zero_()
        embedding[:, 0] = 1.0  # whatever else comes last, a box begins
        output.zero_()
        output[box[0], 0] = 5.0
        for token, state in states.items():
            embedding[token] = torch.eye(32)[state]
            output[following[token], state] = 5.0
    model.save_pretrained(folder)


def make_random(folder: Path, architecture: str, **changes: Any) -> None:
    """Write a random model of an architecture, with the lab's tokenizer."""
    random_model(architecture, **changes).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base_folder()).save_pretrained(folder)


def random_model(architecture: str, **changes: Any) -> Any:
    """Return a random model of an architecture, for the lab's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(base_folder())
    fields: dict[str, Any] = {
        "vocab_size": 920,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "tie_word_embeddings": False,  # tied, it repeats what it reads
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **(fields | changes))
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():  # fresh weights say one token again and again
        if not name.endswith("A_log"):  # of a recurrent state, whose decay is to stay what it is
            torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        model.get_output_embeddings().weight[tokenizer.eos_token_id] *= 4  # it comes to an end
    return model.eval()


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
