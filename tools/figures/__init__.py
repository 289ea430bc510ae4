"""The blocks of figures, in a module for each page."""
