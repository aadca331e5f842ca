"""``midcourse watch RUN``: a run under way on the whole screen, with its latest traces."""
