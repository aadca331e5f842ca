"""One HTML file in which every proposal, rollout and RL group of a run can be found and read."""
