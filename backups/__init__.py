"""A backup: one file with every row and every file that rows name, and the way back from it.

Reads and writes databases and storage as they stand, beside a service and workers that go on; it knows no
request and no job's content. The database in the file is always SQLite's, whatever it came from, so that what
was backed up from one kind of database can be restored into the other.
"""


class Refused(Exception):
    """The message says what was expected, what is there, and what to do."""
