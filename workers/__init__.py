"""The Celery process and what it starts: supervisors, training children, ingest."""
