"""The lab: a controlled world and a small base model, to see the method work in minutes."""
