"""The HTTP process. It writes rows and files and sends wake-ups; it knows nothing of the workers' code."""
