"""Write a table of places and times and whether the sun is up there, as train.csv and test.csv.

    python -m examples.mixed_table.make_data sun.zip

Places and times are drawn at random, one latitude in twenty is left out; the sun follows a formula.
"""

import math
import random
import sys
from datetime import date, timedelta
from pathlib import Path

from examples.docstrings import write_zip

HEADER = ["date", "hour", "latitude", "hemisphere", "sun"]
ROWS = 4000
MISSING_EVERY = 20


def rows(seed: int = 0) -> list[tuple[str, float, float | str, str, str]]:
    draw = random.Random(seed)
    found = []
    for index in range(ROWS):
        day = date(2023, 1, 1) + timedelta(days=draw.randrange(730))
        hour, latitude = round(draw.uniform(0, 24), 2), round(draw.uniform(0, 70), 1)
        hemisphere = draw.choice(("north", "south"))
        sun = "up" if is_up(day, hour, latitude if hemisphere == "north" else -latitude) else "down"
        is_missing = index % MISSING_EVERY == MISSING_EVERY // 2
        found.append((day.isoformat(), hour, "" if is_missing else latitude, hemisphere, sun))
    return found


def is_up(day: date, hour: float, latitude: float) -> bool:
    """At local solar time, by the sun's elevation h over the horizon:

        declination = 23.45° sin(360° (284 + day of year) / 365)
        sin h = sin latitude sin declination + cos latitude cos declination cos(15° (hour - 12))

    Cooper 1969, "The absorption of radiation in solar stills", Solar Energy 12(3), for the declination.
    """
    declination = math.radians(23.45) * math.sin(math.radians(360 * (284 + day.timetuple().tm_yday) / 365))
    place, angle = math.radians(latitude), math.radians(15 * (hour - 12))
    return (
        math.sin(place) * math.sin(declination) + math.cos(place) * math.cos(declination) * math.cos(angle)
    ) > 0


if __name__ == "__main__":
    write_zip(Path(sys.argv[1]), HEADER, rows())
