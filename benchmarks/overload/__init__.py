"""Ten times what the service can do: how much of it is still done, and how the rest is told."""
