"""A worker whose models run behind OpenAI-compatible APIs, as a JSON file describes them.

    python3 -m fastchat.serve.huggingface_api_worker --model-info-file models.json

The file holds an object: `{"NAME": {"model_path": ..., "api_base": "https://.../v1",
"token": ..., "context_length": 4096, "model_names": ..., "conv_template": ...}}`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastchat.entry import run_entry
from fastchat.errors import SettingsError
from fastchat.flag_types import comma_list
from fastchat.serve.worker_entry import add_worker_flags, serve_worker, settings_of

if TYPE_CHECKING:
    from fastapi import FastAPI

    from fastchat.serve.worker.remote import RemoteModel

_TEMPLATE = "api_based_default"
_NEEDED = {"model_path": str, "api_base": str, "context_length": int}


def parser() -> argparse.ArgumentParser:
    """The worker's flags."""
    found = argparse.ArgumentParser(
        prog="fastchat.serve.huggingface_api_worker",
        description="Serves models that run behind OpenAI-compatible APIs.",
    )
    add_worker_flags(found)
    found.add_argument("--model-info-file", required=True, help="JSON: which models are where")
    return found


def read_models(path: str) -> dict[str, RemoteModel]:
    """The models of a file, by the names that they are served under.

    Raises:
        SettingsError: the file cannot be read, or an entry lacks something.
    """
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"--model-info-file {path} cannot be read: {error}") from error
    if not isinstance(entries, Mapping) or not entries:
        raise SettingsError(f"--model-info-file {path} holds no object of models.")
    models: dict[str, RemoteModel] = {}
    for name, entry in entries.items():
        names = entry.get("model_names") if isinstance(entry, Mapping) else None
        listed = comma_list(names) if isinstance(names, str) else names
        models |= dict.fromkeys(listed or [name], _model(name, entry))
    return models


def _model(name: str, entry: Any) -> RemoteModel:
    from fastchat.conversation import get_conv_template
    from fastchat.serve.worker.remote import RemoteModel

    for field, kind in _NEEDED.items():
        value = entry.get(field) if isinstance(entry, Mapping) else None
        if not isinstance(value, kind):
            raise SettingsError(
                f"Model {name!r} of the model info file: {field} is {value!r}; needed are"
                f" {', '.join(_NEEDED)}, and perhaps token, model_names and conv_template."
            )
    return RemoteModel(
        model_path=entry["model_path"],
        api_base=entry["api_base"].rstrip("/"),
        token=str(entry.get("token") or ""),
        context_length=entry["context_length"],
        conversation=get_conv_template(entry.get("conv_template") or _TEMPLATE),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a worker until it is stopped."""
    args = parser().parse_args(argv)
    models = read_models(args.model_info_file)

    def make_app(port: int) -> FastAPI:
        from fastchat.serve.worker.app import worker_app
        from fastchat.serve.worker.remote import RemoteWorker

        return worker_app(RemoteWorker(models, settings_of(args, port, list(models))))

    serve_worker(args, make_app)


if __name__ == "__main__":
    run_entry(main)
