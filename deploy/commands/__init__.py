"""The command line's groups, one module each; heavy libraries are imported when a command runs."""
