"""Bodies of several rows beside JSON: from bytes to the instances that `Predictor.predict` takes. No torch.

form.py          multipart/form-data: an image a part
csv_rows.py      text/csv: a row of a table a line
arrow_rows.py    application/vnd.apache.arrow.stream: rows of a table, arrays, images
arrow_read.py    such a stream's batches, checked before anything of them is unpacked
arrow_cells.py   a column of a table as values        arrow_arrays.py  a column of nested numbers as arrays
columns.py       which columns a table has to have
reading.py       from a request to the one of these that reads it

A row that alone is wrong comes as a BadInstance in its place; what leaves no doubt that all of it is wrong
raises one of `core.errors`.
"""
