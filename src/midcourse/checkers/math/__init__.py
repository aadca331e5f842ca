"""Mathematics: the last box, a fast path, then math-verify in a process that can be killed."""
