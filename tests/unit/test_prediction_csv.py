"""Rows of a CSV, as JSON would have them."""

from typing import Any

import pytest

from core.data.instances import BadInstance
from core.data.manifest import Kind
from core.data.prepare import FittedColumn, check_row
from core.data.prepare.operations import Imputed, ImputedText
from core.errors import Invalid, ModelyardError, TooLarge
from modelyard.specs import MAX_INSTANCES
from service.prediction_bodies.columns import Takes
from service.prediction_bodies.csv_rows import MAX_LINE_CHARACTERS, MAX_LINES, rows_of_csv

AGE = FittedColumn("age", "number", [Imputed([40.0])])
CITY = FittedColumn("city", "string", [ImputedText("rome")])
MEMBER = FittedColumn("member", "bool", [])
TAKES = Takes(Kind.TABLE, [AGE, CITY, MEMBER])
CITIES = Takes(Kind.TABLE, [CITY])


def rows(text: str, takes: Takes = TAKES) -> list[Any]:
    return rows_of_csv(text.encode(), takes)


def test_a_cell_is_what_the_models_column_is() -> None:
    said = "city,age,member\nrome,3,true\n07,1e3,FALSE\n-1.5,-2.5,True\n"
    assert rows(said) == [
        {"city": "rome", "age": 3.0, "member": True},
        {"city": "07", "age": 1000.0, "member": False},
        {"city": "-1.5", "age": -2.5, "member": True},
    ]


@pytest.mark.parametrize("cell", ["", "  ", '""', "nan", "NaN"])
def test_an_empty_cell_and_nan_are_missing(cell: str) -> None:
    assert rows(f"age,city,member\n{cell},,true\n") == [{"age": None, "city": None, "member": True}]


@pytest.mark.parametrize("cell", ["1_000", "three", "٣", "0x10", "1 000", "true"])
def test_what_is_no_number_is_refused_by_the_check_of_its_row(cell: str) -> None:
    (row,) = rows(f"age,city,member\n{cell},oslo,true\n")
    assert check_row(row, TAKES.columns) == "'age': expected a number, got str"


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "1e999"])
def test_infinity_is_refused_by_the_check_of_its_row(cell: str) -> None:
    (row,) = rows(f"age,city,member\n{cell},oslo,true\n")
    assert "finite" in str(check_row(row, TAKES.columns))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_the_headers_and_quotes_hold_it(delimiter: str) -> None:
    header, line = delimiter.join(["city", "age", "member"]), delimiter.join(['"a, b; c\td"', "1", "true"])
    assert rows(f"{header}\n{line}\n") == [{"city": "a, b; c\td", "age": 1.0, "member": True}]


def test_quotes_hold_line_breaks_and_quotes_and_other_ends_of_lines_are_taken() -> None:
    assert rows('city\r\n"two\r\nlines"\r\n"a ""word"""\r\nbern', CITIES) == [
        {"city": "two\r\nlines"},
        {"city": 'a "word"'},
        {"city": "bern"},
    ]


def test_a_byte_order_mark_and_blank_lines_are_left_out_and_cells_trimmed() -> None:
    assert rows_of_csv("\ufeffcity\n\n  bern \n\n\nzürich\n".encode(), CITIES) == [
        {"city": "bern"},
        {"city": "zürich"},
    ]


def test_a_row_with_another_number_of_cells_is_an_error_in_its_place() -> None:
    first, bad, short, last = rows("city,age,member\na,1,true\nb,2,true,4\nc\nd,3,true\n")
    assert (first["city"], last["city"]) == ("a", "d")
    assert [type(one) for one in (bad, short)] == [BadInstance, BadInstance]
    assert (bad.detail, short.detail) == ("expected 3 cells, got 4", "expected 3 cells, got 1")


def test_a_column_that_may_be_missing_may_be_left_out_of_the_header() -> None:
    assert rows("member\ntrue\n") == [{"member": True}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "got no line"),
        ("\n\n", "got no line"),
        ("city,age,member\n", "got none"),
        ("city,age\na,1\n", "'member' is missing"),
        ("city,agee,member\na,1,true\n", "'agee' is not one of them. Did you mean \"age\""),
        ("city,member,city\na,true,b\n", "'city' stands twice"),
        ('city,member\n"a,true\n', "After line 1 comes no row"),
        ('city,member\na,true\n"a"b,true\n', "After line 2 comes no row"),
    ],
)
def test_what_is_no_csv_of_the_models_columns_is_refused_whole(text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        rows(text)


def test_bytes_that_are_no_utf8_are_refused() -> None:
    with pytest.raises(Invalid, match="Expected UTF-8") as raised:
        rows_of_csv("city\nzürich\n".encode("latin-1"), CITIES)
    assert raised.value.code == "bad_encoding"


def test_a_model_of_images_takes_no_csv() -> None:
    with pytest.raises(Invalid, match="takes images"):
        rows("a\n1\n", Takes(Kind.IMAGES, []))


def test_rows_lines_and_cells_have_a_bound() -> None:
    assert len(rows("city\n" + "a\n" * MAX_INSTANCES, CITIES)) == MAX_INSTANCES
    with pytest.raises(TooLarge, match="10000 rows"):
        rows("city\n" + "a\n" * (MAX_INSTANCES + 1), CITIES)
    with pytest.raises(TooLarge, match="200000 lines"):
        rows("city\n" + "\n" * MAX_LINES, CITIES)
    with pytest.raises(TooLarge, match="characters"):
        rows("," * (MAX_LINE_CHARACTERS + 1), CITIES)
    with pytest.raises(ModelyardError):
        rows("city\n" + "a" * 200_000 + "\n", CITIES)
    with pytest.raises(Invalid):
        rows("," * (MAX_LINE_CHARACTERS - 1) + "\n", CITIES)
