"""SQL as text, for drivers."""
