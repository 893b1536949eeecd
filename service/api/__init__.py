"""The HTTP front: routes, schemas, replies and the table of errors."""
