"""From a checkpoint to an artifact: the graph is built from the tensors, verified, and written in one move."""
