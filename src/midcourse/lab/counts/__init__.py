"""The lab's first world: words for numbers, a few of which the base was taught wrong."""
