"""An LSTM that reads a sentence and says which library it documents.

python -m examples.lstm_text.make_data sentences.zip
python -m examples.lstm_text.run --data sentences.zip
"""

from examples.command import follow, options, read_job
from modelyard import Client

SENTENCE = "Fit the estimator and predict a label for each sample of the test set."


def main() -> None:
    arguments = options(__doc__, data="sentences.zip")
    with Client() as client:
        client.datasets.push("sentences", arguments.data, format="text")
        model = follow(client.jobs.submit(read_job(__file__, arguments.epochs)))
        reply = client.models.predict(model, [{"text": SENTENCE}], top_k=3)
    for guess in reply.predictions[0].top or []:
        print(f"{guess.label} ({guess.score:.3f}): {SENTENCE}")


if __name__ == "__main__":
    main()
