"""Settings: from the environment, `.env` and secret files; URLs, TLS, reporters and API tokens."""
