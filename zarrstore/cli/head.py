"""The verb ``head``."""

from __future__ import annotations

import click

from zarrstore.cli.arrays import summary_of, values_text
from zarrstore.cli.common import json_option, opened, path_argument, print_json, storage_options, target_argument
from zarrstore.tools.read import read_region


@click.command()
@target_argument()
@path_argument()
@click.option("-n", "--items", type=click.IntRange(min=1), default=10, show_default=True, help="Of each axis.")
@json_option
@storage_options
def command(target: str, path: str, items: int, as_json: bool, storage_option: tuple[str, ...]) -> None:
    """Print the first values of the array at PATH; only the chunks that hold them are read.

    \b
    zarrstore head data.zarr ocean/temperature
    zarrstore head data.zarr ocean/temperature -n 3
    """
    with opened(target, "r", storage_option) as store:
        values = read_region(store, path, [(0, items)] * 64)
    if as_json:
        print_json({"path": path, **summary_of(values, values=True)})
    else:
        click.echo(values_text(values))
