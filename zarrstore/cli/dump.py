"""The verb ``dump``."""

from __future__ import annotations

import click

from zarrstore.cli.arrays import summary_of, values_text
from zarrstore.cli.common import (
    json_option,
    opened,
    path_argument,
    print_json,
    print_table,
    storage_options,
    target_argument,
)
from zarrstore.tools.read import read_array


@click.command()
@target_argument()
@path_argument()
@click.option("-s", "--statistics", "only_statistics", is_flag=True, help="Print the statistics, and no values.")
@click.option("--max-mib", type=click.IntRange(min=1), default=1024, show_default=True, help="Refuse a larger array.")
@json_option
@storage_options
def command(
    target: str, path: str, only_statistics: bool, max_mib: int, as_json: bool, storage_option: tuple[str, ...]
) -> None:
    """Print all values of the array at PATH, and their statistics: smallest, largest, mean, how many are NaN.

    \b
    zarrstore dump data.zarr ocean/time
    zarrstore dump data.zarr ocean/temperature --statistics
    """
    with opened(target, "r", storage_option) as store:
        values = read_array(store, path, max_nbytes=max_mib << 20)
    summary = summary_of(values, values=not only_statistics)
    if as_json:
        print_json({"path": path, **summary})
        return
    if not only_statistics:
        click.echo(values_text(values, whole=True))
    rows = [(name, value) for name, value in summary.items() if name != "values"]
    print_table(("statistic", ""), rows)
