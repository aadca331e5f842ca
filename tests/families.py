"""Tiny tokenizers of the published families of models, each with its chat template.

What decides a prompt's ids is as published: the template's markers, newlines, system prompts and
dates, what it trims, drops or refuses, and which of its markers are special tokens, added tokens or
plain text. The vocabularies are trained here, on a few lines. The templates are written anew and
short: without tools, images and settings.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

_TEXT = [
    "Solve it step by step. The answer is \\boxed{4}.\n\nSo x + 2 = 4, hence x = 2.\n\n",
    "I say x.\n\nF is 3.\n\nthe F user assistant model system think final analysis INST tool call",
    "Count the tags in it. Second? You are a helpful assistant. Today Date: 26 Jul 2024\n",
    "Ümläut é ∀ 🙂 0123456789 <>|[]{}/_-.,:;!?()'\"",
] * 3
_CHATML = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
_OPEN = "{% if add_generation_prompt %}"
_EACH = "{% for m in messages %}"


@dataclass(frozen=True, slots=True)
class Family:
    """How the models of a family are spoken to."""

    name: str
    template: str
    vocabulary: Callable[[], Tokenizer]
    special: tuple[str, ...]
    """Control tokens that decoding leaves out; the first ends a turn, as ``eos_token``."""
    tags: tuple[str, ...] = ()
    """Control tokens that stand in a decoded text."""
    bos: str | None = None
    unlisted: bool = False
    """Whether only ``eos_token`` and ``bos_token`` are among ``all_special_tokens``."""
    takes_spaces: bool = False
    """Whether a control token takes the white space after it."""

    @property
    def controls(self) -> tuple[str, ...]:
        """Everything that text must never become."""
        return (*self.special, *self.tags)


#: How Llama 3 and Qwen cut text into words: newlines stay together.
_WORDS_AND_BREAKS = (
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# --- vocabularies --------------------------------------------------------------------------------


def byte_level() -> Tokenizer:
    """Return a byte-level BPE: Qwen, Llama 3, Phi-4, GLM, gpt-oss, DeepSeek, Nemo."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS_AND_BREAKS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        _TEXT, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return made


def normalised_bytes() -> Tokenizer:
    """Return a byte-level BPE behind an NFKC normaliser, in which full-width signs are ASCII."""
    made = byte_level()
    made.normalizer = normalizers.NFKC()
    return made


def _sentence_piece() -> tuple[Tokenizer, Any]:
    """Return a BPE over pieces with bytes for unknown letters, without what writes the blanks."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    text = [line.replace("\n", "") for line in _TEXT]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<unk>", *bytes_], show_progress=False
    )
    trained.train_from_iterator(text, trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    made = Tokenizer(
        models.BPE(model["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    made.add_special_tokens([AddedToken("<unk>", special=True)])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return made, parts


def legacy_pieces() -> Tokenizer:
    """Return SentencePiece with a blank before every stretch: Llama 2, Mistral 0.1, Phi-3."""
    made, parts = _sentence_piece()
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
    return made


def first_pieces() -> Tokenizer:
    """Return SentencePiece with a blank before the first stretch alone: Mistral 0.3."""
    made, parts = _sentence_piece()
    made.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    made.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
    return made


def bare_pieces() -> Tokenizer:
    """Return SentencePiece without blanks of its own, runs of newlines as tokens: Gemma."""
    made, parts = _sentence_piece()
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence(parts)
    made.add_tokens([AddedToken("\n" * count, normalized=False) for count in range(1, 6)])
    return made


def unigram() -> Tokenizer:
    """Return a Unigram model whose vocabulary holds its control tokens as pieces too."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=300, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    made.train_from_iterator([line.replace("\n", " ") for line in _TEXT], trainer)
    pieces = [tuple(piece) for piece in json.loads(made.to_str())["model"]["vocab"]]
    control = [(name, 0.0) for name in ("</s>", "<s>", "[INST]", "[/INST]")]
    pieces += [(name, -20.0) for name in bytes_] + control
    made = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
    return made


# --- templates -----------------------------------------------------------------------------------

_QWEN25 = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Qwen, created by Alibaba "
    "Cloud. You are a helpful assistant.<|im_end|>\n{% endif %}"
    f"{_EACH}{_CHATML}{{% endfor %}}{_OPEN}<|im_start|>assistant\n{{% endif %}}"
)

#: Thinking is dropped from the replies before the last question, and shown in those after it.
_QWEN3 = (
    "{% set ns = namespace(last=0) %}"
    f"{_EACH}{{% if m.role == 'user' and not m.content.startswith('<tool_response>') %}}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    f"{_EACH}{{% set content = m.content %}}{{% set thought = '' %}}"
    "{% if m.role == 'assistant' and '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1] %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.index0 > ns.last %}"
    "{{ '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}"
    "{% else %}{{ content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    f"{_OPEN}{{{{ '<|im_start|>assistant\n' }}}}{{% endif %}}"
)
_QWEN3_THINKING = _QWEN3.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>\n'")


def _llama(before: str = "") -> str:
    turn = "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
    return (
        f"{{{{ bos_token }}}}{before}{_EACH}{turn}{{{{ m.content | trim + '<|eot_id|>' }}}}"
        f"{{% endfor %}}{_OPEN}{{{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}}}"
        "{% endif %}"
    )


def _llama_system(day: str) -> str:
    return (
        f"{{% if not date_string is defined %}}{{% set date_string = {day} %}}{{% endif %}}"
        "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n'"
        " + 'Today Date: ' + date_string + '\n\n<|eot_id|>' }}"
    )


_GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    f"{_EACH}{{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/…') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{{ m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    f"{_OPEN}{{{{ '<start_of_turn>model\n' }}}}{{% endif %}}"
)


def _mistral(user: str, reply: str, before: str = "") -> str:
    return (
        f"{{{{ bos_token }}}}{before}{_EACH}{{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}}"
        "{{ raise_exception('After the optional system message, roles must alternate') }}"
        f"{{% endif %}}{{% if m.role == 'user' %}}{{{{ {user} }}}}"
        f"{{% else %}}{{{{ {reply} }}}}{{% endif %}}{{% endfor %}}"
    )


_NEMO = _mistral("'[INST]' + m.content + '[/INST]'", "m.content + eos_token")
_MISTRAL_DAY = (
    "{% set today = strftime_now('%Y-%m-%d') %}"
    "{{ '[SYSTEM_PROMPT]The current date is ' + today + '.[/SYSTEM_PROMPT]' }}"
)
_PHI3 = (
    f"{_EACH}{{{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}}}{{% endfor %}}"
    f"{_OPEN}{{{{ '<|assistant|>\n' }}}}{{% else %}}{{{{ eos_token }}}}{{% endif %}}"
)
_PHI4_MINI = (
    f"{_EACH}{{{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}}}{{% endfor %}}"
    f"{_OPEN}{{{{ '<|assistant|>' }}}}{{% else %}}{{{{ eos_token }}}}{{% endif %}}"
)
_PHI4 = (
    f"{_EACH}{{{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}}}"
    f"{{% endfor %}}{_OPEN}{{{{ '<|im_start|>assistant<|im_sep|>' }}}}{{% endif %}}"
)
_GLM4 = (
    f"[gMASK]<sop>{_EACH}{{{{ '<|' + m.role + '|>\n' + m.content }}}}{{% endfor %}}"
    f"{_OPEN}<|assistant|>{{% endif %}}"
)
_GLM45 = (
    "[gMASK]<sop>{% set ns = namespace(last=0) %}"
    f"{_EACH}{{% if m.role == 'user' %}}{{% set ns.last = loop.index0 %}}{{% endif %}}"
    f"{{% endfor %}}{_EACH}{{% if m.role == 'assistant' %}}"
    "{% set content = m.content %}{% set thought = '' %}"
    "{% if '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1] %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}<|assistant|>"
    "{% if loop.index0 > ns.last and thought %}{{ '\n<think>' + thought.strip() + '</think>' }}"
    "{% else %}{{ '\n<think></think>' }}{% endif %}"
    "{% if content.strip() %}{{ '\n' + content.strip() }}{% endif %}"
    "{% else %}{{ '<|' + m.role + '|>\n' + m.content }}{% endif %}{% endfor %}"
    f"{_OPEN}<|assistant|>{{% endif %}}"
)
_GPT_OSS = (
    "{{ '<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
    "Knowledge cutoff: 2024-06\nCurrent date: ' + strftime_now('%Y-%m-%d') + '\n\nReasoning: "
    "medium\n\n# Valid channels: analysis, commentary, final.<|end|>' }}"
    f"{_EACH}{{% if m.role == 'assistant' %}}"
    "{% if '<|channel|>final<|message|>' in m.content %}"
    "{{ raise_exception('You have passed a message containing <|channel|> tags') }}{% endif %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content }}"
    "{% if loop.last and not add_generation_prompt %}<|return|>{% else %}<|end|>{% endif %}"
    "{% else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}"
    f"{{% endfor %}}{_OPEN}<|start|>assistant{{% endif %}}"
)
_R1 = (
    f"{{{{ bos_token }}}}{_EACH}{{% if m.role == 'user' %}}{{{{ '<｜User｜>' + m.content }}}}"
    "{% else %}{{ '<｜Assistant｜>' + m.content.split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}"
    f"{{% endif %}}{{% endfor %}}{_OPEN}{{{{ '<｜Assistant｜><think>\n' }}}}{{% endif %}}"
)
_ZEPHYR = (
    f"{_EACH}{{{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}}}{{% endfor %}}"
    f"{_OPEN}{{{{ '<|assistant|>\n' }}}}{{% endif %}}"
)
#: A template that says everything in words.
_WORDS = (
    f"{_EACH}{{{{ '### ' + m.role + ':\n' + m.content + '\n\n' }}}}{{% endfor %}}"
    f"{_OPEN}{{{{ '### assistant:\n' }}}}{{% endif %}}"
)

_QWEN = ("<|im_end|>", "<|endoftext|>", "<|im_start|>")
_TOOLS = ("<tool_call>", "</tool_call>", "<|fim_prefix|>")
_THINK = ("<think>", "</think>")
_LLAMA3 = (
    "<|eot_id|>",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|python_tag|>",
    "<|reserved_special_token_0|>",
)
_GEMMAS = ("<eos>", "<pad>", "<bos>", "<start_of_turn>", "<end_of_turn>")
_PHI3S = ("<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
_GLMS = (
    "<|endoftext|>",
    "[gMASK]",
    "<sop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "/nothink",
)
_HARMONY = (
    "<|return|>",
    "<|endoftext|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|channel|>",
    "<|constrain|>",
    "<|call|>",
)
_INST = ("[INST]", "[/INST]", "[TOOL_CALLS]")
_R1S = ("<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>")
_R1_TAGS = ("<｜User｜>", "<｜Assistant｜>", *_THINK)

FAMILIES = {
    family.name: family
    for family in (
        Family("qwen2_5", _QWEN25, byte_level, _QWEN, _TOOLS),
        Family("qwen3", _QWEN3, byte_level, _QWEN, (*_TOOLS, *_THINK)),
        Family("qwen3_thinking", _QWEN3_THINKING, byte_level, _QWEN, (*_TOOLS, *_THINK)),
        Family("chatml_nfkc", _QWEN25, normalised_bytes, _QWEN, _TOOLS),
        Family("llama3", _llama(), byte_level, _LLAMA3, bos="<|begin_of_text|>", unlisted=True),
        Family(
            "llama3_1",
            _llama(_llama_system("'26 Jul 2024'")),
            byte_level,
            _LLAMA3,
            bos="<|begin_of_text|>",
            unlisted=True,
        ),
        Family(
            "llama3_2",
            _llama(_llama_system("strftime_now('%d %b %Y')")),
            byte_level,
            _LLAMA3,
            bos="<|begin_of_text|>",
            unlisted=True,
        ),
        Family("gemma", _GEMMA, bare_pieces, _GEMMAS, ("<h1>", "[toxicity]"), bos="<bos>"),
        Family(
            "gemma3",
            _GEMMA,
            bare_pieces,
            (*_GEMMAS, "<start_of_image>"),
            bos="<bos>",
            unlisted=True,
        ),
        Family(
            "mistral_v0_1",
            _mistral("'[INST] ' + m.content + ' [/INST]'", "' ' + m.content + eos_token + ' '"),
            legacy_pieces,
            ("</s>", "<s>"),
            bos="<s>",
        ),
        Family(
            "llama2",
            _mistral(
                "('<s>' if loop.index0 else '') + '[INST] ' + m.content | trim + ' [/INST]'",
                "' ' + m.content | trim + ' ' + eos_token",
            ),
            legacy_pieces,
            ("</s>", "<s>"),
            bos="<s>",
        ),
        Family(
            "mistral_v0_3",
            _mistral("'[INST] ' + m.content + '[/INST]'", "' ' + m.content | trim + eos_token"),
            first_pieces,
            ("</s>", "<s>", *_INST),
            bos="<s>",
            unlisted=True,
        ),
        Family(
            "mistral_nemo", _NEMO, byte_level, ("</s>", "<s>", *_INST), bos="<s>", unlisted=True
        ),
        Family(
            "mistral_small",
            _mistral("'[INST]' + m.content + '[/INST]'", "m.content + eos_token", _MISTRAL_DAY),
            byte_level,
            ("</s>", "<s>", *_INST, "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
            bos="<s>",
            unlisted=True,
        ),
        Family(
            "unigram",
            _mistral("'[INST] ' + m.content + '[/INST]'", "' ' + m.content + eos_token"),
            unigram,
            ("</s>", "<s>", *_INST[:2]),
            bos="<s>",
        ),
        Family("tinyllama", _ZEPHYR, legacy_pieces, ("</s>", "<s>")),
        Family("phi3", _PHI3, legacy_pieces, _PHI3S, unlisted=True, takes_spaces=True),
        Family("phi3_5", _PHI3, legacy_pieces, _PHI3S, unlisted=True, takes_spaces=True),
        Family("phi3_bytes", _PHI3, byte_level, _PHI3S, unlisted=True),
        Family("phi4mini", _PHI4_MINI, byte_level, _PHI3S, unlisted=True),
        Family(
            "phi4",
            _PHI4,
            byte_level,
            ("<|im_end|>", "<|im_start|>", "<|im_sep|>", "<|endoftext|>"),
            unlisted=True,
        ),
        Family("glm4", _GLM4, byte_level, _GLMS, unlisted=True),
        Family("glm4moe", _GLM45, byte_level, _GLMS, (*_THINK, "<tool_call>"), unlisted=True),
        Family("gptoss", _GPT_OSS, byte_level, _HARMONY, unlisted=True),
        Family(
            "deepseek_r1_distill", _R1, byte_level, _R1S, _R1_TAGS, bos="<｜begin▁of▁sentence｜>"
        ),
        Family("words", _WORDS, byte_level, ("</s>",)),
    )
}


@cache
def tokenizer_of(name: str) -> Any:
    """Return the tokenizer of a family, with its chat template."""
    family = FAMILIES[name]
    made = family.vocabulary()
    strips = {"rstrip": family.takes_spaces, "normalized": False}
    made.add_special_tokens([AddedToken(text, special=True, **strips) for text in family.special])
    # Unlike special tokens they are found in the normalised text.
    made.add_tokens(
        [AddedToken(text, normalized=family.name == "chatml_nfkc") for text in family.tags]
    )
    if family.bos:
        made.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[(family.bos, made.token_to_id(family.bos))]
        )
    others = {} if family.unlisted else {"additional_special_tokens": list(family.special[1:])}
    unknown = {"unk_token": "<unk>"} if made.token_to_id("<unk>") is not None else {}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=family.special[0],
        bos_token=family.bos,
        clean_up_tokenization_spaces=False,
        **unknown,
        **others,
    )
    tokenizer.chat_template = family.template
    return tokenizer
