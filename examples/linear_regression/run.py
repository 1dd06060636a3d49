"""Linear regression: one Linear, the mean squared error, and the closed form to compare with.

python -m examples.linear_regression.make_data diabetes.zip
python -m examples.linear_regression.run --data diabetes.zip
"""

from examples.command import follow, options, read_job
from modelyard import Client

PATIENT = {"sex": 2.0, "bmi": 32.1, "bp": 101.0, "s5": 4.8598}


def main() -> None:
    arguments = options(__doc__, data="diabetes.zip")
    with Client() as client:
        client.datasets.push("patients", arguments.data, format="table")
        model = follow(client.jobs.submit(read_job(__file__, arguments.epochs)))
        reply = client.models.predict(model, [PATIENT])
    print(f"{PATIENT}: {reply.predictions[0].value}")


if __name__ == "__main__":
    main()
