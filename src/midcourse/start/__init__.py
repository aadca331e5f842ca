"""The first minutes: a recipe for one's own model and problems, and what may be wrong here."""
