"""Real text that every machine with the demo's packages has: what Python, NumPy and scikit-learn document.

Nothing is downloaded. Another version of a package documents itself in other words, so the corpus is that of
the machine it is made on.
"""

import csv
import importlib
import inspect
import io
import pkgutil
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import sklearn

#: Of the standard library: modules of many kinds that import without a side effect.
STANDARD_LIBRARY = """
argparse ast asyncio base64 bisect calendar cmath codecs collections concurrent.futures configparser
contextlib copy csv dataclasses datetime decimal difflib dis email enum fileinput fnmatch fractions ftplib
functools gettext glob gzip hashlib heapq hmac html http.client http.server imaplib inspect io ipaddress
itertools json linecache locale logging lzma mailbox math mimetypes multiprocessing numbers operator os
pathlib pickle platform plistlib pprint queue random re sched secrets selectors shelve shlex shutil signal
smtplib socket socketserver sqlite3 ssl stat statistics string struct subprocess symtable sysconfig
tarfile tempfile textwrap threading time tokenize trace traceback types typing unicodedata unittest
urllib.parse urllib.request uuid wave weakref xml.dom.minidom xml.etree.ElementTree zipfile
""".split()  # noqa: SIM905 - a list of so many would be a screen long

#: Every fifth row is kept for the test.
TEST_EVERY = 5

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_PROSE = re.compile(r"(?!.*(---| : ))[A-Z][^>`*|=\\]{20,300}[.]")


@dataclass(frozen=True)
class Documented:
    """A public class, function or method and its docstring."""

    library: str
    name: str
    thing: Any
    docstring: str


def documented() -> Iterator[Documented]:
    """Each docstring once, by library, module and name."""
    seen: set[str] = set()
    for library, modules in _libraries():
        for module in modules:
            for name, thing in _public(module):
                docstring = inspect.getdoc(thing) if callable(thing) else None
                if docstring and docstring not in seen:
                    seen.add(docstring)
                    yield Documented(library, name, thing, docstring)


def sentences(docstring: str) -> Iterator[str]:
    """Whole sentences of prose on one line: no signatures, no examples, no tables."""
    for paragraph in docstring.split("\n\n"):
        for sentence in _SENTENCE_END.split(" ".join(paragraph.split())):
            if _PROSE.fullmatch(sentence):
                yield sentence


def write_zip(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """train.csv and test.csv; of five rows in a row the first is for the test."""
    rows = list(rows)
    splits = {
        "train": [row for index, row in enumerate(rows) if index % TEST_EVERY],
        "test": rows[::TEST_EVERY],
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for split, members in splits.items():
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([header, *members])
            entry = zipfile.ZipInfo(f"{split}.csv")  # without today's date: the same rows, the same bytes
            archive.writestr(entry, text.getvalue())


def _libraries() -> Iterator[tuple[str, list[ModuleType]]]:
    yield "python", [importlib.import_module(name) for name in STANDARD_LIBRARY]
    yield "numpy", [numpy, *_packages(numpy)]
    yield "scikit-learn", list(_packages(sklearn))


def _packages(package: ModuleType) -> Iterator[ModuleType]:
    """Its public subpackages, those for tests and experiments left out."""
    for found in pkgutil.iter_modules(package.__path__):
        if not found.name.startswith(
            ("_", "conftest", "tests", "testing", "experimental", "f2py", "distutils")
        ):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some are there only to say that they have moved
                yield importlib.import_module(f"{package.__name__}.{found.name}")


def _public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
    for name in sorted(names):
        thing = vars(module).get(name)  # not what the module would only make when asked
        if inspect.ismodule(thing) or not _is_of(thing, module):
            continue
        yield name, thing
        if inspect.isclass(thing):
            yield from (
                (f"{name}.{key}", value) for key, value in vars(thing).items() if not key.startswith("_")
            )


def _is_of(thing: Any, module: ModuleType) -> bool:
    """Not what a module has imported from another library."""
    package = module.__name__.split(".")[0].lstrip("_")
    home = (getattr(thing, "__module__", None) or package).split(".")[0].lstrip("_")
    return home == package or module.__name__.split(".")[0] not in ("numpy", "sklearn")
