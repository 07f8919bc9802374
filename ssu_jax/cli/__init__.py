"""The console program `ssu`: one file a verb; each parses its arguments and calls one function."""
