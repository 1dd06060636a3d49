"""A small CNN on folders of JPEGs, mirrored at random and normalised."""
