"""Recipes: what a person writes in TOML, checked before any work starts.

    name = "mine"
    seed = 0
    [model]
    path = "my-model"

Every section is a small strict model: an unknown key is an error that names the nearest known
one, units are in the names, and each default is a choice of ours, never a library's. ``--set
sample.num_rollouts=8`` overrides one value. The resolved recipe is written next to the run.

A key that is `tunable` makes a run faster or puts it elsewhere. It is in no artifact's key and may
change when a run is resumed. Every other key is part of what it changes (`Section.identity`).
"""

from midcourse.config.base import (
    KEYS_VERSION,
    Dtype,
    Part,
    SamplingConfig,
    Section,
    TemplateArguments,
    is_bfloat16,
    without_credentials,
)
from midcourse.config.engines import (
    TEMPLATE_DATE,
    EngineConfig,
    InnerEngineConfig,
    ModelConfig,
    OpenAIConfig,
    RayConfig,
    ScriptedConfig,
    SingleEngineConfig,
    TransformersConfig,
    VllmConfig,
    served_by,
    single_engine,
    speaks_messages,
)
from midcourse.config.keys import Key, describe_keys, find_keys, key_table, recipe_schema
from midcourse.config.load import load_recipe, make_recipe
from midcourse.config.mistakes import explain
from midcourse.config.prices import PricesConfig
from midcourse.config.recipe import Recipe, slow_adapters
from midcourse.config.stages import (
    HELD_OUT_SET,
    PROBE_SETS,
    TRAIN_SET,
    UNSEEN_SET,
    BuildSftConfig,
    GradeConfig,
    HintsConfig,
    ProblemsConfig,
    ProposeConfig,
)
from midcourse.config.training import (
    Advantage,
    DistillConfig,
    DistillFrom,
    Loss,
    TrainProposerConfig,
    TrainRlConfig,
    TrainSftConfig,
    ZeroGradient,
    logprobs_mode,
)

__all__ = [
    "HELD_OUT_SET",
    "KEYS_VERSION",
    "PROBE_SETS",
    "TEMPLATE_DATE",
    "TRAIN_SET",
    "UNSEEN_SET",
    "Advantage",
    "BuildSftConfig",
    "DistillConfig",
    "DistillFrom",
    "Dtype",
    "EngineConfig",
    "GradeConfig",
    "HintsConfig",
    "InnerEngineConfig",
    "Key",
    "Loss",
    "ModelConfig",
    "OpenAIConfig",
    "Part",
    "PricesConfig",
    "ProblemsConfig",
    "ProposeConfig",
    "RayConfig",
    "Recipe",
    "SamplingConfig",
    "ScriptedConfig",
    "Section",
    "SingleEngineConfig",
    "TemplateArguments",
    "TrainProposerConfig",
    "TrainRlConfig",
    "TrainSftConfig",
    "TransformersConfig",
    "VllmConfig",
    "ZeroGradient",
    "describe_keys",
    "explain",
    "find_keys",
    "is_bfloat16",
    "key_table",
    "load_recipe",
    "logprobs_mode",
    "make_recipe",
    "recipe_schema",
    "served_by",
    "single_engine",
    "slow_adapters",
    "speaks_messages",
    "without_credentials",
]
