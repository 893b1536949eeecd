"""`python -m bench.gpu`: Berth on a GPU against torch on the same one; needs torch and transformers, no network."""
