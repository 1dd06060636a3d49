"""An LSTM that reads a sentence and says which library it documents."""
