"""Tables and arrays in, typed results out: the only border between JAX and the rest of the package."""
