"""The credit map: what several signals say of the same steps of wrong rollouts."""
