"""Many initial times become many GraphCast forecasts in one store."""
