"""A page to read questions, answers and judgments on.

python3 -m fastchat.llm_judge.qa_browser --bench-name yuan_bench
"""

from __future__ import annotations

import argparse
import logging
import secrets
from collections.abc import Sequence
from importlib.util import find_spec

from fastchat.entry import run_entry
from fastchat.errors import SettingsError
from fastchat.llm_judge.flags import bench_of, judge_parser


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    found = judge_parser("qa_browser", "A page to read questions, answers and judgments on.")
    add = found.add_argument
    add("--host", default="127.0.0.1", help="0.0.0.0 lets other machines read it, too")
    add("--port", type=int, default=7860)
    add("--share", action="store_true", help="publish the page by way of Gradio's servers")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Serves the page until it is stopped."""
    args = parser().parse_args(argv)
    if find_spec("gradio") is None:
        raise SettingsError(
            "The page needs Gradio, which is not installed.",
            hint="pip install 'fastchat-yuan2[webui]'",
        )
    bench = bench_of(args)
    if not bench.models():
        raise SettingsError(
            f"There are no answers in {bench.folder / 'model_answer'}.",
            hint="gen_model_answer and gen_api_answer write them.",
        )

    import uvicorn

    from fastchat.llm_judge.browser_page import create_browser
    from fastchat.llm_judge.browsing import Library

    app = create_browser(Library(bench))
    if args.share:
        _share(args.port)
    print(f"http://{args.host}:{args.port}/ (Ctrl-C ends it)", flush=True)
    uvicorn.run(app, host=args.host, port=args.port, log_level="warning")


def _share(port: int) -> None:
    import gradio

    try:
        token = secrets.token_urlsafe(32)
        url = gradio.networking.setup_tunnel("127.0.0.1", port, token, None, None)
    except Exception as error:  # noqa: BLE001 (whatever a download and a foreign program raise)
        logging.getLogger(__name__).warning("The page cannot be shared: %s", error)
    else:
        print(f"public: {url}")


if __name__ == "__main__":
    run_entry(main)
