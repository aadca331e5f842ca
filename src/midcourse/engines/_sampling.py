"""Sampling by seed: counter-based draws, and the warping of logits as `generate` defines it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import TopKLogitsWarper

from midcourse.records import Sampling


def uniforms(seeds: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return one number in [0, 1) per (seed, position), by the SplitMix64 finaliser.

    A row's draws depend on nothing but its own seed and how many tokens it has.
    """
    with np.errstate(over="ignore"):
        state = seeds.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state += (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0xD1B54A32D192ED03)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) / 2.0**53


def sample_tokens(
    logits: Tensor, parameters: Sequence[Sampling], draws: Tensor, seen: Tensor | None
) -> Tensor:
    """Return one token id per row of `logits` (rows, vocabulary).

    `draws` are uniforms in [0, 1); `seen` marks the ids of each row's context for the repetition
    penalty. Rows with the same parameters are handled together.
    """
    # By identity first: a stage hands every request the same object.
    distinct = list({id(sampling): sampling for sampling in parameters}.values())
    if len(distinct) == 1:
        return _sample(logits.float(), distinct[0], draws, seen)
    tokens = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    for sampling in dict.fromkeys(distinct):
        rows = torch.tensor(
            [i for i, p in enumerate(parameters) if p == sampling], device=logits.device
        )
        marks = seen[rows] if seen is not None else None
        tokens[rows] = _sample(logits[rows].float(), sampling, draws[rows], marks)
    return tokens


def logprobs_of(logits: Tensor, tokens: Tensor, temperatures: Tensor) -> Tensor:
    """Return the log-probability (rows,) of one token per row of `logits` (rows, vocabulary).

    At each row's temperature, nothing cut off: what a trainer computes. Greedy rows count as 1.
    """
    scales = torch.where(temperatures > 0, temperatures, 1.0).to(logits.device)
    scaled = logits.float() / scales[:, None]
    return scaled.gather(-1, tokens[:, None])[:, 0] - scaled.logsumexp(-1)


def _sample(logits: Tensor, sampling: Sampling, draws: Tensor, seen: Tensor | None) -> Tensor:
    if sampling.repetition_penalty != 1.0 and seen is not None:
        penalised = torch.where(
            logits < 0, logits * sampling.repetition_penalty, logits / sampling.repetition_penalty
        )
        logits = torch.where(seen, penalised, logits)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probabilities = _warp(logits / sampling.temperature, sampling).softmax(-1)
    cumulative = probabilities.cumsum(-1)
    # The sum is a hair off 1 in float32; scaling the draw keeps the last id reachable, no more.
    targets = draws[:, None].to(cumulative.dtype) * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, targets, right=True)[:, 0]
    return found.clamp(max=logits.shape[-1] - 1)


def _warp(logits: Tensor, sampling: Sampling) -> Tensor:
    """Apply top-k, top-p and min-p, in that order and as `generate` defines them."""
    if sampling.top_k:
        logits = TopKLogitsWarper(sampling.top_k)(None, logits)
    if sampling.top_p < 1:
        logits = keep_top_p(logits, sampling.top_p)
    if sampling.min_p > 0:  # not by MinPLogitsWarper: that sorts
        probabilities = logits.softmax(-1)
        floor = sampling.min_p * probabilities.max(-1, keepdim=True).values
        logits = logits.masked_fill(probabilities < floor, -torch.inf)
    return logits


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Return logits (rows, vocabulary) with -inf for ids outside the nucleus of mass `top_p`.

    An id stays if the ids likelier than it have less than `top_p`; the likeliest always does. As
    `TopPLogitsWarper`, which sorts the whole vocabulary, but for where a sum is within rounding of
    `top_p`. Only ids of at least (1 - top_p) / vocabulary are sorted: all others together have less
    than 1 - top_p, so that none of them can stay.
    """
    probabilities = logits.softmax(-1)
    floor = (1 - top_p) / logits.shape[-1]
    most = max(1, int((probabilities >= floor).sum(-1).max()))
    top, ids = probabilities.topk(most, -1)
    dropped = top.cumsum(-1) - top >= top_p
    dropped[:, 0] = False
    kept = logits.gather(-1, ids).masked_fill(dropped, -torch.inf)
    return torch.full_like(logits, -torch.inf).scatter_(-1, ids, kept)
