"""The options of `fpn serve`, and the limits of each request."""

import argparse
import math
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """The limits of a request.

    Attributes:
      body: bytes of a request's body.
      instances: images in a request.
      pixels: width times height of an image, summed over all frames of an animation.
      request_pixels: pixels of all images in a request.
      waiting: images of all requests that wait for the model; beyond it, new requests are refused for the moment.
      seconds: time in which a client must send its headers, the same time again for the body, and again to take the answer.
    """

    body: int
    instances: int
    pixels: int
    seconds: float
    waiting: int = 2048

    @property
    def request_pixels(self) -> int:
        return 4 * self.pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `fpn serve`."""
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="DIR",
        help="a pushed model, or the folder of its versions, which is watched",
    )
    parser.add_argument("--port", type=int, required=True, metavar="N", help="TCP port; 0 for any that is free")
    parser.add_argument("--host", default="127.0.0.1", metavar="HOST", help="address to listen on; 0.0.0.0 for all (127.0.0.1)")
    parser.add_argument(
        "--name", type=name_in_address, default="fpn", metavar="NAME", help="of the model in the addresses (fpn)"
    )
    parser.add_argument(
        "--max-batch", type=whole_number, default=32, metavar="N", help="images that the model takes at once (32)"
    )
    parser.add_argument(
        "--max-delay", type=seconds_or_zero, default=2.0, metavar="MS", help="milliseconds that a request waits for others (2)"
    )
    parser.add_argument("--max-body", type=whole_number, default=16, metavar="MB", help="megabytes of a request (16)")
    parser.add_argument("--max-instances", type=whole_number, default=128, metavar="N", help="images of a request (128)")
    parser.add_argument("--max-pixels", type=whole_number, default=25, metavar="M", help="million pixels of an image (25)")
    parser.add_argument(
        "--timeout",
        type=positive,
        default=20.0,
        metavar="S",
        help="seconds that a client has to send a request and to take its answer, or may send nothing (20)",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="name by which clients or pages may address the server, beside localhost and addresses; such as *.example.com",
    )
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with the token that clients must send")
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="PEM file: serve HTTPS")
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="PEM file of the certificate's key, if that is not in its file"
    )
    parser.add_argument(
        "--poll", type=positive, default=1.0, metavar="S", help="seconds between two looks for a new version (1)"
    )
    parser.add_argument(
        "--capture", type=Path, metavar="DIR", help="write what the model is asked and answers into tables, for fpn monitor"
    )
    parser.add_argument("--share", type=share, default=0.1, metavar="S", help="of the images that is captured (0.1)")
    parser.add_argument(
        "--capture-images", action="store_true", help="capture the image files, too, not only what they are like"
    )
    parser.add_argument(
        "--capture-gb", type=positive, default=1.0, metavar="GB", help="of tables that are kept; the oldest are deleted (1)"
    )


def limits(options: argparse.Namespace) -> Limits:
    return Limits(
        body=options.max_body * 1_000_000,
        instances=options.max_instances,
        pixels=options.max_pixels * 1_000_000,
        seconds=options.timeout,
    )


def whole_number(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return value


def positive(text: str) -> float:
    if not 0 < (value := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value


def share(text: str) -> float:
    if not 0 < (value := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text}: must be above 0, and 1 or less")
    return value


def seconds_or_zero(text: str) -> float:
    if not 0 <= (value := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: must be 0 or more")
    return value


def name_in_address(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text}: letters, digits, _ - and . only")
    return text
