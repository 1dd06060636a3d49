"""Write sentences of docstrings and whose they are, Python's, NumPy's or scikit-learn's, as two CSVs.

    python -m examples.lstm_text.make_data sentences.zip

Every fifth sentence is for the test. A docstring's sentences may stand on both sides.
"""

import sys
from pathlib import Path

from examples.docstrings import documented, sentences, write_zip

PER_LIBRARY = 1000


def rows() -> list[tuple[str, str]]:
    """(text, library), equally many of each library, spread over all of it."""
    found: dict[str, str] = {}
    for thing in documented():
        for sentence in sentences(thing.docstring):
            found.setdefault(sentence, thing.library)
    by_library: dict[str, list[str]] = {}
    for sentence, library in found.items():
        by_library.setdefault(library, []).append(sentence)
    return [
        (text, library)
        for library, texts in by_library.items()
        for text in texts[:: len(texts) // PER_LIBRARY][:PER_LIBRARY]
    ]


if __name__ == "__main__":
    write_zip(Path(sys.argv[1]), ["text", "library"], rows())
