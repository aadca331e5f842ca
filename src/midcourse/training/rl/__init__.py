"""Outcome-reward RL (§4.2): TRL's GRPO optimises, what it trains on is sampled and kept here."""
