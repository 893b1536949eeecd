"""One file a group of routes, each a translation between its schema and the embedder."""
