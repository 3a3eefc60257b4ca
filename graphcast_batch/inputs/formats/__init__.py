"""Open netCDF, zarr and GRIB files, on this machine and on others."""
