"""The benchmark: texts, a load generator, the encoder's ceiling and the matrix products' floor. Not shipped."""
