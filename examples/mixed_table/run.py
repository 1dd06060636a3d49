"""A table of numbers, strings, dates and missing values: is the sun up?

python -m examples.mixed_table.make_data sun.zip
python -m examples.mixed_table.run --data sun.zip
"""

from examples.command import follow, options, read_job
from modelyard import Client

ROWS = [
    {"date": "2025-06-21", "hour": 5.0, "latitude": 52.5, "hemisphere": "north"},
    {"date": "2025-12-21", "hour": 5.0, "latitude": 52.5, "hemisphere": "north"},
    {"date": "2025-12-21", "hour": 12.0, "latitude": None, "hemisphere": "south"},
]


def main() -> None:
    arguments = options(__doc__, data="sun.zip")
    with Client() as client:
        client.datasets.push("sun", arguments.data, format="table")
        model = follow(client.jobs.submit(read_job(__file__, arguments.epochs)))
        reply = client.models.predict(model, ROWS)
    for row, prediction in zip(ROWS, reply.predictions, strict=True):
        print(f"{row}: {prediction.label} ({prediction.score:.3f})")


if __name__ == "__main__":
    main()
