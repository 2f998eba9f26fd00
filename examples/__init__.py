"""The example notebooks, and what runs them."""
