"""Training: TRL's SFT and GRPO trainers, configured and called, never extended."""
