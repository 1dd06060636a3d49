"""Every query and every status move, one noun a file.

The functions return statements, so that the async service and the sync supervisor run the same query.
"""
