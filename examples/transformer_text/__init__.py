"""A transformer encoder on the sentences of examples/lstm_text, with a warm-up."""
