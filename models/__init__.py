"""Models that come with minidyn: one TOML file for each loss and its default experiment, data beside them."""
