"""The memory world: dialogues in which a wrong value is written early and read turns later."""
