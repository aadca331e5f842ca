"""Warm-up: what a small model must be taught before it can take part in the method at all.

Two trainings on problems that the loop never sees: *worked solutions* in our answer form, then
*verification* of attempts whose first error is known because we put it there. Large models need
neither. What a warm-up teaches is part of every result that stands on it, so it is a recipe of its
own, with its own run directory: ``midcourse warmup recipes/gsm8k-warmup.toml``.
"""
