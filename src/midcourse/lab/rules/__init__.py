"""The lab's second world: verbs that act by rules in context, told in many words."""
