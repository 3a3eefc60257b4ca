"""Whose data they are is what they say themselves, and nothing more."""

import pytest

from graphcast_batch.inputs.provenance import Provenance, common, provenance

ECMWF = "European Centre for Medium-Range Weather Forecasts"
CDS_2024 = {
    "GRIB_centre": "ecmf",
    "institution": ECMWF,
    "Conventions": "CF-1.7",
    "history": "GRIB to CDM+CF via cfgrib",
}
CDS_2019 = {
    "Conventions": "CF-1.6",
    "history": "by grib_to_netcdf-2.25.1: /opt/ecmwf/mars-client/bin/grib_to_netcdf.bin",
}


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"GRIB_centre": "ecmf", "GRIB_class": "ea", "GRIB_dataType": "an"}, "ERA5"),
        ({"GRIB_centre": "ecmf", "GRIB_class": "od", "GRIB_stream": "oper"}, "HRES"),
        ({"GRIB_centre": "ecmf", "GRIB_class": "ei"}, "ERA-Interim"),
        ({"GRIB_centre": "kwbc", "GRIB_generatingProcessIdentifier": "81"}, "GFS"),
        ({"GRIB_centre": "kwbc", "GRIB_generatingProcessIdentifier": 96}, "GFS"),
        ({"GRIB_centre": "kwbc", "GRIB_generatingProcessIdentifier": "83"}, ""),
        ({"GRIB_centre": "kwbc", "GRIB_class": "ea"}, ""),
        ({"institution": ECMWF, "source": "IFS open data"}, "HRES"),
        ({"institution": "NCEP", "source": "GFS"}, "GFS"),
        ({"source": "ERA5, made with IFS Cy41r2"}, "ERA5"),
        ({"title": "ERA5T reanalysis"}, "ERA5"),
        ({"title": "WRF of the GFS and ERA5"}, ""),
        ({"title": "HRES against ERA5"}, ""),
        ({"title": "reanalysis-era5-pressure-levels"}, "ERA5"),
        ({"title": "Specifs of gifs"}, ""),
        ({"valid_time_start": "1940-01-01", "valid_time_stop": "2023-12-31"}, "ERA5"),
        ({"source": "GFS", "history": "cdo remapbil,era5_grid in.nc out.nc"}, "GFS"),
        ({"history": "ncks era5.nc out.nc"}, "ERA5"),
        (CDS_2024, ""),
        (CDS_2019, ""),
        ({}, ""),
    ],
)
def test_attributes_say_it_or_do_not(attributes, kind):
    assert provenance(attributes).kind == kind


def test_preliminary_era5_has_a_version_of_its_own():
    assert provenance(CDS_2024, ["0001", "0005"]).kind == provenance({}, [1, 5.0]).kind == "ERA5"
    assert provenance(CDS_2024, ["0001"]).kind == ""


@pytest.mark.parametrize(
    ("origin", "kind"),
    [
        ("/data/era5_1deg.zarr", "ERA5"),
        ("/data/era5/analyses.nc", ""),
        ("gs://weatherbench2/datasets/era5/1959-2022-6h-64x32.zarr", "ERA5"),
        ("gs://weatherbench2/datasets/hres_t0/2016-2022-6h.zarr", "HRES"),
        ("source-gdas_date-2020010100_res-1.0_levels-13_steps-4.nc", "GFS"),
        ("gfs.t00z.pgrb2.0p25.f000", "GFS"),
    ],
)
def test_a_name_counts_where_nothing_else_says_it(origin, kind):
    found = provenance({}, (), origin)
    assert found == Provenance(kind, "by its name" if kind else "")
    assert provenance({"source": "IFS"}, (), origin).kind == "HRES"


def test_what_is_known_is_told_where_it_does_not_tell_the_kind():
    assert str(provenance(CDS_2024)) == f"centre ecmf, institution {ECMWF}"
    assert str(provenance({"institution": "NCEP", "source": "GFS"})) == "GFS (source GFS)"
    assert str(provenance({"source": "x" * 999})) == f"source {'x' * 60}..."
    assert str(Provenance()) == ""


def test_files_agree_where_those_that_know_do():
    era5, gfs, silent = Provenance("ERA5", "class ea"), Provenance("GFS", "source GFS"), Provenance("", "centre ecmf")
    assert common([silent, era5, silent]) == era5
    assert common([era5, gfs]) == Provenance("", "ERA5 (class ea); GFS (source GFS)")
    assert common([silent, Provenance()]) == silent
    assert common([]) == Provenance()
