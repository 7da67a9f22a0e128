"""One golden recipe per adapter family, named as the family is."""
