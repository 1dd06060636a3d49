"""A Graph with two inputs: numbers and text about the same thing.

python -m examples.two_inputs.make_data things.zip
python -m examples.two_inputs.run --data things.zip
"""

from examples.command import follow, options, read_job
from modelyard import Client

THINGS = [
    {"summary": "Return the larger of two numbers.", "parameters": 2, "defaults": 0, "lines": 1},
    {"summary": "Linear model with regularization.", "parameters": 8, "defaults": 8, "lines": 120},
]


def main() -> None:
    arguments = options(__doc__, data="things.zip")
    with Client() as client:
        client.datasets.push("things", arguments.data, format="text", options={"text": "summary"})
        model = follow(client.jobs.submit(read_job(__file__, arguments.epochs)))
        reply = client.models.predict(model, THINGS)
    for thing, prediction in zip(THINGS, reply.predictions, strict=True):
        print(f"{thing}: {prediction.label} ({prediction.score:.3f})")


if __name__ == "__main__":
    main()
