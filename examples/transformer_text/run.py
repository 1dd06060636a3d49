"""A transformer encoder on the sentences of examples/lstm_text, with a warm-up.

python -m examples.lstm_text.make_data sentences.zip
python -m examples.transformer_text.run --data sentences.zip
"""

from examples.command import follow, options, read_job
from modelyard import Client

SENTENCE = "Return the sine of each element of the array."


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
