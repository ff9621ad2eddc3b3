"""The `paper` profile from features to tables: heads, banks, fusion, figures and their doubt."""
