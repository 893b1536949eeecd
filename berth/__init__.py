"""Berth, a dock for BERT: what a user types and imports."""
