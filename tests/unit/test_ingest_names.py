"""Names of files, splits and labels, and what every CSV has in common."""

import pytest

from core.errors import Invalid
from workers.ingest import csv_text
from workers.ingest.labels import classes_of, sort_labels
from workers.ingest.names import files_by_split, is_noise, safe_name, split_of_file
from workers.ingest.problems import MAX_ERRORS, Problems, row_pointer


@pytest.mark.parametrize(
    "name",
    [
        "../x.png",
        "a/../../x",
        "/etc/passwd",
        "C:/x.png",
        "a\\b.png",
        "a\0.png",
        "/".join("d" * 33),
        "\udcff.png",
    ],
)
def test_a_name_that_could_leave_the_folder_is_refused(name: str) -> None:
    with pytest.raises(Invalid) as caught:
        safe_name(name)
    assert caught.value.code == "unsafe_path"


def test_a_plain_name_is_kept_in_one_spelling() -> None:
    assert safe_name("./train//cafe\u0301/1.png") == "train/caf\u00e9/1.png"


@pytest.mark.parametrize(
    ("name", "noise"),
    [
        ("__MACOSX/train/._1.png", True),
        (".DS_Store", True),
        ("train/.hidden/1.png", True),
        ("LICENSE", True),
        ("README.md", True),
        ("Thumbs.db", True),
        ("readme/1.png", False),
        ("notice.png", False),
        ("train/1.png", False),
    ],
)
def test_noise_is_what_says_nothing_about_the_data(name: str, noise: bool) -> None:
    assert is_noise(name) is noise


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("data/mnist_test.csv", "test"),
        ("valid-labels.csv", "val"),
        ("Validation.csv", "val"),
        ("contest.csv", None),
        ("train_test.csv", None),
    ],
)
def test_a_files_words_say_its_split(name: str, split: str | None) -> None:
    assert split_of_file(name) == split


def test_a_single_file_is_the_training_split_whatever_its_name() -> None:
    assert files_by_split(["labels.csv"]) == {"train": "labels.csv"}


def test_two_files_of_one_split_are_ambiguous() -> None:
    with pytest.raises(Invalid, match=r"both a_train\.csv and b_train\.csv are train"):
        files_by_split(["a_train.csv", "b_train.csv"])


def test_integer_labels_sort_as_numbers_and_others_by_codepoint() -> None:
    assert sort_labels(["10", "9", "-1", "9"]) == ["-1", "9", "10"]
    assert sort_labels(["b", "a", "B"]) == ["B", "a", "b"]


def test_a_label_that_training_lacks_is_named() -> None:
    with pytest.raises(Invalid, match=r"the test split .* 'cow', 'emu'") as caught:
        classes_of({"train": ["cat"], "test": ["emu", "cat", "cow"]})
    assert caught.value.code == "unseen_label"


@pytest.mark.parametrize(
    ("line", "delimiter"), [("a,b", ","), ("a;b,5;c", ";"), ("a\tb", "\t"), ('"a;b;c",d', ","), ("a", ",")]
)
def test_the_delimiter_is_the_commonest_outside_quotes(line: str, delimiter: str) -> None:
    assert csv_text.sniff_delimiter(line) == delimiter


def test_bytes_that_are_no_utf8_are_refused_with_their_line() -> None:
    with pytest.raises(Invalid, match="line 3") as caught:
        csv_text.decode("a\nb\nä".encode("latin-1"), "x.csv")
    assert caught.value.code == "bad_encoding"


def test_a_pointer_escapes_the_slash_of_a_path() -> None:
    assert row_pointer("a/b~.csv", 17) == "/a~1b~0.csv/rows/17"


def test_errors_are_gathered_up_to_their_bound() -> None:
    problems = Problems()
    for row in range(MAX_ERRORS - 1):
        problems.add(row_pointer("x.csv", row), "missing_file", "gone")
    with pytest.raises(Invalid) as caught:
        problems.add("/x.csv/rows/last", "other", "gone")
    assert len(caught.value.errors) == MAX_ERRORS
    assert caught.value.code == "missing_file"
