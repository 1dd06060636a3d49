"""The shared home of service and workers: settings, rows, files, nets. No HTTP, no task bodies."""
