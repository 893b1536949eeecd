"""Peers: other servers of the same model, each in an environment of its own under a cache folder, never in ours."""
