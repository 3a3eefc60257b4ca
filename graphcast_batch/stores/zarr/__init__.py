"""Keep the forecasts of a run in one zarr store on a file system that all nodes share."""
