"""Train the weights of a model."""
