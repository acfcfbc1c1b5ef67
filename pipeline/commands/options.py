"""Options that several commands have."""

import argparse

from base.paths import home_path


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=home_path, required=True, metavar="FILE", help="YAML file, such as configs/digits.yaml"
    )
    parser.add_argument("--data", metavar="PATH", help="folder of images, instead of data.path in the file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides", help="change a value of the file"
    )
