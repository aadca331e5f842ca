"""Intervention Training (InT) for language models.

A model finds the first error in its own failed reasoning by comparing it with a reference
solution, writes a one-step intervention, the intervention is verified by continuing from it, the
model is fine-tuned on prefix + intervention, and outcome-reward RL then learns where it had no
signal. Start with ``midcourse run recipes/lab.toml``; read `midcourse.records`, then
`midcourse.stages`, to know the method.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
