"""Runs from where they live: W&B, Hugging Face, files and URLs in, a checked snapshot with its provenance out."""
