"""The command `fastchat`: runs the modules that also run with `python3 -m`.

Knows only their names; each parses its own flags.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence

from fastchat import __version__

COMMANDS = {
    "demo": (
        "fastchat.demo.command",
        "fine-tune a tiny Yuan2, serve it and chat with it",
    ),
    "train": ("fastchat.train.train", "fine-tune all weights of a model"),
    "train-lora": ("fastchat.train.train_lora", "fine-tune a LoRA adapter"),
    "train-dpo": ("fastchat.train.dpo", "teach a model to prefer some answers to others"),
    "plan": ("fastchat.train.plan", "say what a training run needs, and whether it fits"),
    "data": ("", "run a data tool; without a name, list them"),
    "validate": ("fastchat.data.validate", "show data as training sees it"),
    "eval": ("fastchat.llm_judge.evaluate", "have a model answer questions and a judge mark it"),
    "chat": ("fastchat.serve.chat", "chat in the terminal, with a server or a loaded model"),
    "web": ("fastchat.serve.gradio_web_server_multi", "run the web page"),
    "serve": ("fastchat.serve.launch_all_serve", "start controller, workers and API server"),
    "controller": ("fastchat.serve.controller", "run the controller"),
    "worker": ("fastchat.serve.model_worker", "run a worker that serves a model"),
    "vllm-worker": ("fastchat.serve.vllm_worker", "run a worker that computes with vLLM"),
    "api": ("fastchat.serve.openai_api_server", "run the OpenAI-compatible API server"),
    "bench": ("fastchat.serve.test_throughput", "measure a worker under load"),
    "doctor": ("fastchat.serve.doctor", "look at this machine, and say what to mend"),
}

DATA_TOOLS = (
    "clean_sharegpt",
    "convert_alpaca",
    "extract_single_round",
    "filter_wrong_format",
    "get_stats",
    "hardcoded_questions",
    "inspect_data",
    "merge",
    "optional_clean",
    "optional_replace",
    "prepare_all",
    "pretty_json",
    "sample",
    "split_long_conversation",
    "split_train_test",
    "validate",
)
"""Modules of `fastchat.data` that `fastchat data` runs."""

JUDGE_TOOLS = (
    "compute_agreement",
    "gen_api_answer",
    "gen_judgment",
    "gen_model_answer",
    "perplexity",
    "qa_browser",
    "show_result",
)
"""Modules of `fastchat.llm_judge` that `fastchat eval` runs by their names."""


def usage() -> str:
    """What the command can do."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: fastchat COMMAND [FLAGS]",
            "",
            "commands:",
            *lines,
            "",
            "fastchat COMMAND --help tells a command's flags; fastchat --version the version.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command; exits with its status, 2 for an unknown one."""
    name, *flags = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
    elif name == "--version":
        print(f"fastchat-yuan2 {__version__}")
    elif name == "data":
        _data(flags)
    elif name == "eval" and flags and (tool := flags[0].replace("-", "_")) in JUDGE_TOOLS:
        _run(f"fastchat.llm_judge.{tool}", flags[1:])
    elif name in COMMANDS:
        _run(COMMANDS[name][0], flags)
    else:
        print(f"error: there is no command {name!r}.\n\n{usage()}", file=sys.stderr)
        sys.exit(2)


def _data(flags: Sequence[str]) -> None:
    tool = flags[0].replace("-", "_") if flags else ""
    if tool in DATA_TOOLS:
        _run(f"fastchat.data.{tool}", flags[1:])
        return
    asked = not flags or flags[0] in ("-h", "--help")
    shown = "usage: fastchat data TOOL [FLAGS]\n\ntools:\n  " + "\n  ".join(DATA_TOOLS)
    if not asked:
        shown = f"error: there is no data tool {flags[0]!r}.\n\n{shown}"
    print(shown, file=sys.stdout if asked else sys.stderr)
    sys.exit(0 if asked else 2)


def _run(module: str, flags: Sequence[str]) -> None:
    sys.argv[1:] = flags
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
