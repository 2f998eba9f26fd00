"""What builds the API reference."""
