"""The paper's baselines: hints, whole solutions as SFT rows, pairs for Step-DPO.

Like the stages, plain functions from records to records; what they sample and grade goes through
the same two stages as everything else. See ``docs/baselines.md``.
"""
