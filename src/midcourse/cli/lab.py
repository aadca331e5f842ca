"""Verbs of the lab's base model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from midcourse.cli.app import Group, lab_app, verb
from midcourse.errors import ConfigError

World = Literal["counts", "rules", "programs", "memory"]
OptimizerName = Literal["adamw", "muon"]


@verb(Group.LAB, "midcourse lab pretrain --out my-base --steps 200", "pretrain", of=lab_app)
def lab_pretrain(
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 8500,
    seed: Annotated[int, typer.Option(help="Seed of weights and documents.")] = 0,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-3,
    start: Annotated[
        str, typer.Option(help="A folder to continue from, or lab; default: from scratch.")
    ] = "",
    num_layers: Annotated[int, typer.Option(help="Layers; may be more than --start has.")] = 4,
    mix: Annotated[str, typer.Option(help="What is taught: base, or a variant's name.")] = "base",
    world: Annotated[World, typer.Option(help="Whose documents.")] = "counts",
    cooldown: Annotated[
        float, typer.Option(help="Share of steps with a falling rate; 0: one cycle.")
    ] = 0.0,
    batch_tokens: Annotated[int, typer.Option(help="Tokens of a batch, about.")] = 1500,
    hidden_size: Annotated[int, typer.Option(help="Width of a fresh model.")] = 128,
    optimizer: Annotated[
        OptimizerName, typer.Option(help="Muon is for the layers' matrices, AdamW for the rest.")
    ] = "adamw",
    pool: Annotated[
        int, typer.Option(min=1, help="Batches drawn together and filled by length.")
    ] = 1,
) -> None:
    """Train the lab's base model, from scratch or from where an earlier call left it."""
    from midcourse.engines import resolve_model
    from midcourse.lab.pretrain import PretrainConfig, pretrain
    from midcourse.lab.worlds import WORLDS

    if mix not in (mixes := WORLDS[world].curriculum.mixes):
        raise ConfigError(f"--mix {mix!r}: choose one of {', '.join(mixes)}")
    config = PretrainConfig(
        steps=steps,
        seed=seed,
        learning_rate=learning_rate,
        start=resolve_model(start),
        num_layers=num_layers,
        mix=mix,
        world=world,
        cooldown=cooldown,
        batch_tokens=batch_tokens,
        hidden_size=hidden_size,
        optimizer=optimizer,
        pool=pool,
    )
    pretrain(config, out, typer.echo)


@verb(Group.LAB, "midcourse lab check --num-problems 20", "check", of=lab_app)
def lab_check(
    model: Annotated[str, typer.Option(help="A model folder; default: the bundled one.")] = "lab",
    num_problems: Annotated[int, typer.Option(help="Problems of each kind.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of problems and samples.")] = 1000,
    world: Annotated[World, typer.Option(help="The model's world.")] = "counts",
    far_k: Annotated[
        int, typer.Option(help="World rules: samples that tell what is out of reach.")
    ] = 1024,
) -> None:
    """Measure what the base model must and must not be able to do; exit code 1 if it fails."""
    from midcourse.lab.check import check_world
    from midcourse.lab.counts.check import check_counts
    from midcourse.lab.rules.check import check_rules
    from midcourse.progress import open_console

    if world == "counts":
        tables, passed = check_counts(model, num_problems, seed)
    elif world == "rules":
        tables, passed = check_rules(model, num_problems, seed, far_k)
    else:
        tables, passed = check_world(world, model, num_problems, seed)
    for table in tables:
        open_console().print(table)
    raise typer.Exit(0 if passed else 1)
