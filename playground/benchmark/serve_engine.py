"""The chain with a model, against the same engine in process and FastChat from PyPI."""

from __future__ import annotations

import argparse
import asyncio
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

from serve_alone import Alone
from serve_load import Load, load, one_by_one
from serve_peer import Peer, PeerSettings
from serve_processes import Chain, bare_chain, model_worker, our_chain
from serve_report import CHAT, Ways, bodies, in_turn, ratio, row, told_ratio

_SEVERAL = 20
_TRIED_STREAMS = 16
_RATE_TARGETS = {1: "at least 2", 4: "at least 5", 16: "at least 12", 64: "at least 25"}
_PEER_DEFAULT_LIMIT = 5


class Bench:
    """Our chain, the engine alone and, if there is one, the peer; all of them running."""

    def __init__(self, args: argparse.Namespace, log: Path, opened: ExitStack) -> None:
        from engine_models import checkpoint

        self._args = args
        self._log = log
        self._model = Path(args.model) if args.model else checkpoint("T")
        self._asked: dict[str, Any] = {"max_tokens": args.tokens}
        worker = model_worker(str(self._model), args.dtype)
        self._ours = opened.enter_context(our_chain(log, [worker]))
        self._bare = opened.enter_context(bare_chain(log))
        self._alone = opened.enter_context(Alone(str(self._model), args.dtype, args.tokens))
        self._peer: Peer | None = None
        self._peer_chain: Chain | None = None
        self._settings: PeerSettings | None = None
        if args.peer_python:
            python = str(Path(args.peer_python).absolute())
            self._peer = Peer(python, self._peer_model())
            if not args.peer_model:
                self._peer.write(self._model)
            self._settings = self._best()
            self._peer_chain = opened.enter_context(self._peer_with(self._settings))

    def _peer_model(self) -> Path:
        given = self._args.peer_model
        return Path(given).absolute() if given else self._log / "random"

    def _peer_with(self, settings: PeerSettings) -> Chain:
        assert self._peer is not None
        chain = Chain(self._log)
        self._peer.serve(chain, settings)
        return chain

    def _best(self) -> PeerSettings:
        """The peer's fastest settings, each tried once with 16 streams."""
        args = self._args
        known = [
            PeerSettings(*found)
            for found in product(args.peer_dtype, args.peer_threads, args.peer_limit)
        ]
        return known[0] if len(known) == 1 else max(known, key=self._tried)

    def _tried(self, settings: PeerSettings) -> float:
        with self._peer_with(settings) as chain:
            self._ask_peer(chain, 1)
            rate = self._rate(self._ask_peer(chain, _TRIED_STREAMS))
        print(f"FastChat with {settings}: {rate:.1f} tokens/s", flush=True)
        return rate

    def _ask_ours(self, count: int) -> Load:
        more = {**self._asked, "model": "yuan2", "ignore_eos": True}
        return asyncio.run(load(self._ours.url + CHAT, bodies(count, **more)))

    def _ask_peer(self, chain: Chain, count: int) -> Load:
        more = {**self._asked, "model": "peer"}
        return asyncio.run(load(chain.url + CHAT, bodies(count, **more)))

    def streams(self, count: int) -> None:
        """So many streams at once, all ways in turn."""
        ways: Ways = {
            "chain": lambda: self._ask_ours(count),
            "engine alone": lambda: self._alone.load(count),
        }
        in_turn(ways, 1)
        peer = self._peer_chain
        if peer is not None:
            self._ask_peer(peer, 1)
            ways["FastChat"] = lambda: self._ask_peer(peer, count)
        runs = in_turn(ways, self._args.repeats)
        for name, found in runs.items():
            row(f"{name}, {count} streams", found, self._rate, "tokens/s")
            row("  time to first text", found, Load.median_first_s, "s")
            short = sum(answer.finish != "length" for run in found for answer in run.complete)
            if short:
                print(f"  answers with fewer tokens than asked for: {short}")
        name = f"tokens/s, {count} streams, chain / "
        alone = runs["engine alone"]
        ratio(name + "engine", runs["chain"], alone, self._rate, "at least 0.8 at 64 streams")
        first = Load.median_first_s
        wanted = "at most 2 at 64 streams"
        ratio("  first text, chain / engine", runs["chain"], alone, first, wanted)
        if peer is not None:
            target = _RATE_TARGETS.get(count, "")
            ratio(name + "FastChat", runs["chain"], runs["FastChat"], self._rate, target)
            ratio("  first text, FastChat / chain", runs["FastChat"], runs["chain"], first)
        print()

    def _rate(self, run: Load) -> float:
        return run.per_second() * float(self._args.tokens)

    def one_token(self) -> None:
        """What the servers add to a single token, one request after the other."""
        one = {"max_tokens": 1}
        ours = bodies(_SEVERAL, **one, model="yuan2", ignore_eos=True)
        ways: Ways = {
            "chain": lambda: asyncio.run(one_by_one(self._ours.url + CHAT, ours)),
            "engine alone": lambda: self._alone.one_by_one(_SEVERAL),
            "bare": lambda: asyncio.run(one_by_one(self._bare.url + "/1", ours)),
        }
        peer, settings = self._peer_chain, self._settings
        if peer is not None:
            theirs = bodies(_SEVERAL, **one, model="peer")
            ways["FastChat"] = lambda: asyncio.run(one_by_one(peer.url + CHAT, theirs))
        in_turn(ways, 1)
        runs = in_turn(ways, self._args.repeats)
        whole = Load.median_whole_s
        for name, found in runs.items():
            row(f"{name}, one token", found, whole, "s")
        alone = map(whole, runs["engine alone"])
        own = [whole(run) - engine for run, engine in zip(runs["chain"], alone, strict=True)]
        bare = map(whole, runs["bare"])
        ratios = [cost / echo for cost, echo in zip(own, bare, strict=True)]
        told_ratio("own cost of the chain / bare", ratios, "at most 4")
        if peer is not None and settings is not None and self._peer is not None:
            model_s = self._peer.alone_s(settings)
            print(f"{'FastChat, one token without servers':<44}{model_s:>12.4g} s")
            theirs_s = [whole(run) - model_s for run in runs["FastChat"]]
            ratios = [cost / mine for cost, mine in zip(theirs_s, own, strict=True)]
            told_ratio("own cost, FastChat / chain", ratios, "at least 50")
        print()

    def default_limit(self, count: int) -> None:
        """The first text at the peer's own limit of requests at once, if it is not the best."""
        settings = self._settings
        if settings is None or self._peer is None or settings.limit == _PEER_DEFAULT_LIMIT:
            return
        default = PeerSettings(settings.dtype, settings.threads, _PEER_DEFAULT_LIMIT)
        with self._peer_with(default) as chain:
            self._ask_peer(chain, 1)
            ways: Ways = {
                "chain": lambda: self._ask_ours(count),
                "FastChat": lambda: self._ask_peer(chain, count),
            }
            runs = in_turn(ways, self._args.repeats)
        first = Load.median_first_s
        row(f"FastChat with {default}, first text", runs["FastChat"], first, "s")
        target = "at least 100"
        ratio("  first text, FastChat / chain", runs["FastChat"], runs["chain"], first, target)


def engine(args: argparse.Namespace, log: Path) -> None:
    """Measures everything that the flags ask for."""
    with ExitStack() as opened:
        bench = Bench(args, log, opened)
        bench.one_token()
        for count in args.streams:
            bench.streams(count)
        bench.default_limit(max(args.streams))
