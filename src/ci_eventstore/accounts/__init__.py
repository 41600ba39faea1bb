"""Users and API keys: records with unique indexes; no event streams."""
