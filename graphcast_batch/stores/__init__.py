"""Keep the forecasts of a run: the port of all stores, and what they share."""
