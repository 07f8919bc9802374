"""The data sets of the field, each in the layout in which it is distributed."""
