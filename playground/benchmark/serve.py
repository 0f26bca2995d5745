"""How fast the whole chain serves, over HTTP, against what it could be and what FastChat is.

    python playground/benchmark/serve.py scripted --streams 64 2000
    python playground/benchmark/serve.py engine --peer-python PATH
    python playground/benchmark/serve.py prefix

`scripted` takes the model out: sixteen tokens a request from an engine that only counts, two
workers, against two bare hops of the same libraries. `engine` serves a model, against the same
engine inside this process and, where its Python is named, FastChat from PyPI with a random Llama
of the same shape and tokenizer. `prefix` compares how much of their prompts two workers know
already with what one worker knows. Everything runs in turn, in one run; ratios count, not times.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """The benchmark's flags."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = found.add_subparsers(dest="part", required=True)
    scripted = parts.add_parser("scripted", help="the chain without a model")
    engine = parts.add_parser("engine", help="the chain with a model")
    prefix = parts.add_parser("prefix", help="conversations over two workers")
    for part in (scripted, engine):
        part.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16, 64])
        part.add_argument("--repeats", type=int, default=5)
    for part in (engine, prefix):
        part.add_argument(
            "--model", help="a Yuan2 folder; a random one of hidden size 256 if unset"
        )
        part.add_argument("--dtype", default="bfloat16")
    scripted.add_argument(
        "--asked",
        type=int,
        default=5,
        help="requests of each client, one after the other, so that all streams are at it at once;"
        " with 1 a client that comes first is also done first",
    )
    add = engine.add_argument
    add("--tokens", type=int, default=64, help="of each answer")
    add("--peer-python", help="of an environment with FastChat from PyPI")
    add("--peer-model", help="a folder that FastChat serves; made if unset")
    tried = "the fastest combination of these is measured"
    add("--peer-dtype", nargs="+", default=["float32", "bfloat16"], help=tried)
    add("--peer-threads", type=int, nargs="+", default=[1, 2], help=tried)
    add("--peer-limit", type=int, nargs="+", default=[5, 64], help=tried)
    prefix.add_argument("--chats", type=int, default=50)
    prefix.add_argument("--turns", type=int, default=5)
    return found


def main() -> None:
    """Measures one part."""
    args = parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder)
        match args.part:
            case "scripted":
                from serve_scripted import scripted

                scripted(args, log)
            case "engine":
                from serve_engine import engine

                engine(args, log)
            case "prefix":
                from serve_prefix import prefix

                prefix(args, log)


if __name__ == "__main__":
    main()
