"""Training: TRL's SFT, DPO and GRPO trainers, configured and called, never extended."""
