"""From text to vectors, without HTTP: nothing here imports FastAPI, the API or the settings."""
