"""The evaluation report as people see it: plots, page, tables on the terminal."""
