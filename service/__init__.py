"""The HTTP service: settings, the API, its server and its page."""
