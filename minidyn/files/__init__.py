"""What is kept: results as HDF5, models as TOML."""
