"""Warm-up: what a small model must be taught before it can take part in the method at all.

Worked solutions in our answer form, then verification of attempts whose first error is known
because we put it there, on problems that the loop never sees (`docs/warmup.md`).
"""
