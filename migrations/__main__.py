"""`python -m migrations` brings the configured database to the newest revision and says what it did.

`python -m migrations draft "what changed"` writes the next revision from the tables, for a reader to correct.
"""

import sys

from core.settings import settings_or_exit
from migrations import draft, upgrade


def main(arguments: list[str]) -> int:
    url = settings_or_exit().resolved_database_url()
    match arguments:
        case []:
            before, after = upgrade(url)
            was = "already" if before == after else f"was {before or 'empty'}, now"
            print(f"database: {was} at revision {after}")
        case ["draft", message]:
            print(f"wrote {draft(url, message)}")
        case _:
            print('expected no arguments, or: draft "what changed"', file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
