"""Telling receivers outside: which addresses may be reached, one signed request, who sends when.

`core.db.outbox` writes the messages; here they are sent, from the service process, beside the sweep.
"""
