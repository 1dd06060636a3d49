"""The database: tables, every statement, the engines."""
