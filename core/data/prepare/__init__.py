"""Tables and text to arrays: what `prepare` in a spec does, learned on training rows, stored as numbers.

steps.py        what a spec may write
forms.py        what is known of a column before any row is read
resolve.py      a spec's list with every column written out, and what reaches the net
learn.py        a step and the training rows -> its operation
operations.py   a step with what it has learned
fitted.py       the operations of each column, in order: stored with the version, replayed by training
                and serving alike
"""

from core.data.prepare.fitted import Columns, FittedColumn, apply, fit
from core.data.prepare.resolve import Resolved, resolve_prepare
from core.data.prepare.rows import check_row, columns_from_arrays, columns_from_arrow, columns_from_rows

__all__ = [
    "Columns",
    "FittedColumn",
    "Resolved",
    "apply",
    "check_row",
    "columns_from_arrays",
    "columns_from_arrow",
    "columns_from_rows",
    "fit",
    "resolve_prepare",
]
