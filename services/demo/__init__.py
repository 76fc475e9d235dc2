"""The demo: the whole loop on a year of real shopping, and its report."""
