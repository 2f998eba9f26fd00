"""``python -m delphi_jax``: the same as the ``delphi-jax`` command."""

from delphi_jax.cli import command

if __name__ == "__main__":
    command()
