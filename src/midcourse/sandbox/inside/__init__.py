"""What runs inside a sandbox: it imports Python's library and itself, to begin quickly."""
