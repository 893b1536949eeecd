"""The encoder on the CPU."""
