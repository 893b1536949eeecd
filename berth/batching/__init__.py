"""Which sequences are encoded together, and when: queue and admission decide, the worker's threads carry it out."""
