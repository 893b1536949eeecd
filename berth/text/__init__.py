"""From texts to framed token sequences: tokenizing, truncation and windows."""
