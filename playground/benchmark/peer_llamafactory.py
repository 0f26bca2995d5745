"""How fast this project fine-tunes, against LLaMA-Factory on the same token ids.

    python playground/benchmark/peer_llamafactory.py --venv FOLDER [--setting NAME|all] [--json]

LLaMA-Factory lives in an environment of its own, made beforehand (Python 3.11, CPU):

    python -m venv FOLDER
    FOLDER/bin/pip install torch==2.13.0
    FOLDER/bin/pip install torch==2.13.0 llamafactory==0.9.5 transformers==5.6.0
    FOLDER/bin/pip uninstall torchvision
    rm FOLDER/lib/python3.11/site-packages/torchaudio/lib/*.so

The last two take away what was built for CUDA and cannot be imported beside a torch for the
CPU; training on text uses neither.

Both sides train all weights of one random Llama, in float32, on one file of conversations,
in a process each. LLaMA-Factory first runs alone, in each of its settings; then the fastest
of them and this project take turns, a step here and a step there, so that whatever else the
machine does meets both alike. Whole steps are timed, from fetching the batch to the
optimizer; start-up and each side's first step are not. What a step learned is counted from
the labels that reach the network.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peer_inputs import (
    DATA,
    GEOMETRIES,
    GROUP,
    MAX_LENGTH,
    PAD_ID,
    TEMPLATE,
    message_lengths,
    write_inputs,
)


@dataclass(frozen=True, slots=True)
class Setting:
    """A way to run LLaMA-Factory.

    Attributes:
        arguments: that set it apart.
        batch: samples of one forward pass; a step accumulates as many passes as it needs.
        packed: rows of `MAX_LENGTH` are what is batched, and a step is one pass.
    """

    arguments: dict[str, Any]
    batch: int = GROUP
    packed: bool = False


_PLAIN = {"flash_attn": "sdpa", "disable_gradient_checkpointing": True}
_NEAT = _PLAIN | {"neat_packing": True}
SETTINGS = {
    "as-shipped": Setting({}),
    "padded": Setting(_PLAIN),
    "grouped": Setting(_PLAIN | {"dataset": "grouped", "disable_shuffling": True}),
    "one-by-one": Setting(_PLAIN, batch=1),
    "neat-packing": Setting(_NEAT, packed=True),
    "neat-packing-workers": Setting(_NEAT | {"dataloader_num_workers": 2}, packed=True),
    "neat-packing-compiled": Setting(_NEAT | {"torch_compile": True}, packed=True),
    "packing": Setting(_PLAIN | {"packing": True}, packed=True),
}
"""What is tried of LLaMA-Factory. Liger and flash-attention, its other ways to be fast, need a
GPU."""

LEAKS = "packing"
"""The setting in which samples attend to those before them in their row. That is another
training, so it is measured, but not taken for the fastest."""

GEMM_BACKENDS = {"mkl": "none", "onednn": "bf16"}
"""`torch.backends.mkldnn.matmul.fp32_precision` for both sides."""

COMMON = {
    "max_steps": 100_000,
    "learning_rate": 1e-5,
    "logging_steps": 100_000,
    "save_strategy": "no",
    "report_to": "none",
}
"""Arguments of both trainers, so that they do nothing but train until they are stopped."""


@dataclass(frozen=True, slots=True)
class Step:
    """One optimisation step.

    Attributes:
        seconds: wall time.
        cpu_seconds: of all threads and workers.
        learned: tokens with a label.
        places: tokens computed, padding included.
    """

    seconds: float
    cpu_seconds: float
    learned: int
    places: int

    @property
    def rate(self) -> float:
        """Learned tokens per second."""
        return self.learned / self.seconds

    @property
    def cpu_rate(self) -> float:
        """Learned tokens per CPU second."""
        return self.learned / self.cpu_seconds


class Side:
    """A trainer in a process of its own, which takes a step when it is asked to.

    It has started when it is made, and ends with its `with` block.

    Args:
        python: of its environment.
        spec: see `peer_side.py`.
        log: takes what it prints.

    Attributes:
        described: its data and libraries.

    Raises:
        RuntimeError: it ended.
    """

    def __init__(self, python: Path, spec: Mapping[str, Any], log: Path) -> None:
        offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(log.parent / "hf")}
        self._log = log
        with log.open("w") as stream:
            self._process = subprocess.Popen(
                [python, "-P", Path(__file__).with_name("peer_side.py"), json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                env=os.environ | offline,
                start_new_session=True,
            )
        self.described = self._reply()

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def step(self) -> Step:
        """Has it take one step."""
        assert self._process.stdin is not None
        before = self._cpu_seconds()
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        reply = self._reply()
        return Step(cpu_seconds=self._cpu_seconds() - before, **reply)

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            tail = self._log.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise RuntimeError(f"A trainer ended; its last words:\n{tail}")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _cpu_seconds(self) -> float:
        """Time used by the process and all that it has started."""
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == self._process.pid:
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Bench:
    """What is measured, and where.

    Attributes:
        folder: inputs, outputs and logs.
        peer_python: of LLaMA-Factory's environment.
        gemm: a key of `GEMM_BACKENDS`, or None: each side as it ships.
        own_flags: more arguments for this project's trainer.
    """

    folder: Path
    peer_python: Path
    gemm: str | None
    own_flags: Mapping[str, str]

    def peer(self, name: str, batch: int) -> Side:
        """LLaMA-Factory in a setting, with `batch` samples, or packed rows, a step."""
        setting = SETTINGS[name]
        at_once = batch if setting.packed else min(batch, setting.batch)
        arguments = {
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "full",
            "model_name_or_path": str(self.folder / "model"),
            "dataset": "data",
            "dataset_dir": str(self.folder),
            "template": TEMPLATE,
            "cutoff_len": MAX_LENGTH,
            "output_dir": str(self.folder / f"output-{name}"),
            "per_device_train_batch_size": at_once,
            "gradient_accumulation_steps": round(batch / at_once),
        }
        spec = self._spec("peer", arguments | COMMON | setting.arguments)
        return Side(self.peer_python, spec, self.folder / f"{name}.log")

    def own(self, batch: int) -> Side:
        """This project with `batch` conversations a step, and otherwise as it ships."""
        arguments = {
            "model_name_or_path": str(self.folder / "model"),
            "data_path": str(self.folder / "data.json"),
            "output_dir": str(self.folder / "output-own"),
            "model_max_length": MAX_LENGTH,
            "per_device_train_batch_size": batch,
        }
        spec = self._spec("own", {**arguments, **COMMON, **self.own_flags})
        return Side(Path(sys.executable), spec, self.folder / "own.log")

    def _spec(self, side: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        precision = None if self.gemm is None else GEMM_BACKENDS[self.gemm]
        return {
            "side": side,
            "arguments": dict(arguments),
            "pad_id": PAD_ID,
            "fp32_precision": precision,
        }

    def survey(self, setting: str, batch: int, steps: int) -> dict[str, Any]:
        """LLaMA-Factory alone."""
        with self.peer(setting, batch) as peer:
            peer.step()
            return figures([peer.step() for _ in range(steps)])

    def race(self, setting: str, batch: int, pairs: int, conversations: int) -> dict[str, Any]:
        """Both in turn, with the same number of conversations a step on average.

        Raises:
            RuntimeError: they do not learn the same number of tokens within 1 %.
        """
        with self.peer(setting, batch) as peer:
            items = max(1, round(batch * conversations / peer.described["rows"]))
            with self.own(items) as own:
                theirs, ours = peer.described, own.described
                if abs(theirs["learned"] / ours["learned"] - 1) > 0.01:
                    raise RuntimeError(f"Not the same is learned: {theirs} there, {ours} here.")
                peer.step()
                own.step()
                taken = [(peer.step(), own.step()) for _ in range(pairs)]
        return {
            "peer": figures([other for other, _ in taken]) | theirs | {"batch": batch},
            "own": figures([own for _, own in taken]) | ours | {"batch": items},
            "same_ids": theirs["digest"] == ours["digest"],
            "ratio": spread(own.rate / other.rate for other, own in taken),
            "cpu_ratio": spread(own.cpu_rate / other.cpu_rate for other, own in taken),
        }


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, least and greatest."""
    values = list(values)
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def figures(steps: Sequence[Step]) -> dict[str, Any]:
    """What some steps come to."""
    learned = sum(step.learned for step in steps)
    return {
        "trained_tokens_per_s": spread(step.rate for step in steps),
        "trained_tokens_per_cpu_s": spread(step.cpu_rate for step in steps),
        "step_s": spread(step.seconds for step in steps),
        "trained_tokens_per_step": learned / len(steps),
        "computed_per_trained_token": sum(step.places for step in steps) / learned,
    }


def measure(bench: Bench, args: argparse.Namespace) -> dict[str, Any]:
    """Everything that the command line asks for."""
    write_inputs(bench.folder, args.geometry, args.data)
    lengths = [sum(words) for words in message_lengths(args.data)]
    samples = max(1, round(args.tokens / statistics.mean(lengths)))
    samples -= samples % GROUP if samples > GROUP else 0  # a step is a number of whole passes
    rows = max(1, args.tokens // MAX_LENGTH)
    batches = {name: rows if setting.packed else samples for name, setting in SETTINGS.items()}
    alone: dict[str, dict[str, Any]] = {}
    chosen = args.setting
    if chosen == "all":
        for name, batch in batches.items():
            print(f"{name} ...", file=sys.stderr, flush=True)
            alone[name] = bench.survey(name, batch, args.steps)
        medians = {name: row["trained_tokens_per_s"]["median"] for name, row in alone.items()}
        chosen = max(medians.keys() - {LEAKS}, key=medians.__getitem__)
    print(f"{chosen} and ours in turn ...", file=sys.stderr, flush=True)
    return {
        "geometry": args.geometry,
        "data": args.data,
        "gemm": bench.gemm or "as shipped",
        "alone": alone,
        "setting": chosen,
        "race": bench.race(chosen, batches[chosen], args.pairs, len(lengths)),
    }


def print_table(results: Mapping[str, Any]) -> None:
    """Shows the results on a terminal."""

    def shown(values: Mapping[str, float], digits: int) -> str:
        middle, least, most = (f"{values[name]:.{digits}f}" for name in ("median", "min", "max"))
        return f"{middle:>8} {f'({least} to {most})':20}"

    race = results["race"]
    print(f"Llama of geometry {results['geometry']}, {results['data']}, GEMM {results['gemm']}")
    print(f"{'':30}{'trained tokens/s':29}{'per CPU second':29}{'s/step':29}computed/trained")
    rows = results["alone"] | {
        f"{results['setting']}, in turn": race["peer"],
        "ours, in turn": race["own"],
    }
    for name, row in rows.items():
        columns = [
            shown(row[column], digits)
            for column, digits in (
                ("trained_tokens_per_s", 1),
                ("trained_tokens_per_cpu_s", 1),
                ("step_s", 2),
            )
        ]
        print(f"{name:30}{''.join(columns)}{row['computed_per_trained_token']:8.2f}")
    print(f"{'ours against theirs':30}{shown(race['ratio'], 2)}{shown(race['cpu_ratio'], 2)}")
    same = "the same ids" if race["same_ids"] else "but not the same ids"
    print(
        f"an epoch holds {race['peer']['tokens']} tokens there and {race['own']['tokens']} here,"
        f" of which {race['peer']['learned']} and {race['own']['learned']} are learned: {same}"
    )


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--venv", type=Path, required=True, help="LLaMA-Factory's environment; see this file's top"
    )
    parser.add_argument("--setting", choices=[*SETTINGS, "all"], default="all")
    parser.add_argument("--geometry", choices=GEOMETRIES, default="M")
    parser.add_argument("--data", choices=DATA, default="single")
    parser.add_argument("--tokens", type=int, default=2048, help="computed a step, about")
    parser.add_argument("--steps", type=int, default=5, help="timed of each setting alone")
    parser.add_argument("--pairs", type=int, default=5, help="timed steps of both in turn")
    parser.add_argument("--gemm", choices=GEMM_BACKENDS, help="one backend for both sides")
    parser.add_argument(
        "--own",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="another argument for this project's trainer",
    )
    parser.add_argument("--work", type=Path, help="folder that keeps inputs and logs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(argv)


def main() -> None:
    """Prints a table, or JSON."""
    args = parse()
    own_flags = {name: value for name, _, value in (text.partition("=") for text in args.own)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.work or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(folder, args.venv.absolute() / "bin" / "python", args.gemm, own_flags)
        results = measure(bench, args)
    if args.json:
        print(json.dumps(results, indent=2))
    else:
        print_table(results)


if __name__ == "__main__":
    main()
