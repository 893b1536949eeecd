"""The encoder on NVIDIA GPUs."""
