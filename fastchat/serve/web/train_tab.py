"""The training page: data, rows, command, start, loss, stop, and a worker for the result."""

from __future__ import annotations

import asyncio
import html
import shlex
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import gradio as gr

from fastchat.errors import FastChatError, SettingsError, WorkerUnavailableError
from fastchat.serve.processes import Service, Services, free_ports
from fastchat.serve.web.catalogue import Catalogue
from fastchat.serve.web.labels import Labels
from fastchat.serve.web.listening import PRIVATE, QUICK
from fastchat.serve.web.plots import loss_plot
from fastchat.serve.web.training import KINDS, MODES, Plan, Runs, offers
from fastchat.serve.web.words import say

_FREE: dict[str, Any] = {"choices": [], "value": "", "allow_custom_value": True}
_ROWS = 3
_EVERY_S = 2.0
_LOOK_S = 0.2
_LOOKS = 150
_ROWS_S = 120.0


class TrainTab:
    """The tab. Its components are made where it is built.

    Args:
        labels: makes components with texts.
        runs: the runs that are started here.
        catalogue: learns of the result when it is served.
        controller_url: where a worker for the result registers; "" for none.
    """

    def __init__(
        self, labels: Labels, runs: Runs, catalogue: Catalogue, controller_url: str
    ) -> None:
        self._runs = runs
        self._catalogue = catalogue
        self._controller_url = controller_url
        self._services = Services(runs.folder / "workers")
        self._served: set[str] = set()
        make = labels.make
        with gr.Row():
            model = make(gr.Dropdown, {"label": "train_model"}, **_FREE, elem_id="train-model")
            data = make(gr.Dropdown, {"label": "train_data"}, **_FREE, elem_id="train-data")
            output = make(gr.Textbox, {"label": "train_output"}, value="output", max_lines=1)
        with gr.Row():
            kind = make(gr.Dropdown, {"label": "train_kind", "choices": list(KINDS)}, value="full")
            mode = make(
                gr.Dropdown, {"label": "train_mode", "choices": list(MODES)}, value=MODES[0]
            )
        with gr.Row():
            epochs = make(gr.Number, {"label": "train_epochs"}, value=3)
            rate = make(gr.Number, {"label": "train_rate"}, value=2e-5, precision=None)
            length = make(gr.Number, {"label": "train_length"}, value=1024, precision=0)
        with gr.Row():
            recipe = make(gr.Dropdown, {"label": "train_recipe"}, **_FREE, elem_id="train-recipe")
            more = make(gr.Textbox, {"label": "train_more"}, max_lines=1)
        self._plan = [kind, mode, model, data, output, epochs, rate, length, recipe, more]
        with gr.Row(elem_classes="acts"):
            buttons = {
                name: make(gr.Button, {"value": f"train_{name}"}, size="sm", min_width=90)
                for name in ("rows", "command", "start", "stop", "serve")
            }
        fixed: dict[str, Any] = {"language": None, "interactive": False, "visible": False}
        self._shown = make(gr.Code, {"label": "train_shown"}, elem_id="train-shown", **fixed)
        self._loss = gr.HTML(elem_id="train-loss")
        self._log = make(gr.Code, {"label": "train_log"}, elem_id="train-log", **fixed)
        self._buttons = buttons
        self._offered = [model, data, recipe]
        self._timer = gr.Timer(_EVERY_S)

    def wire(self, tab: gr.Tab, language: Any, models: Any) -> None:
        """Connects all events.

        Args:
            tab: where it lies.
            language: the component that tells the language.
            models: the chat's drop-down, which offers the result once it is served.
        """
        tab.select(self._offer, None, self._offered, **QUICK)
        buttons, view = self._buttons, [self._loss, self._log]
        buttons["rows"].click(self._rows, self._plan, self._shown, **PRIVATE)
        buttons["command"].click(self._command, self._plan, self._shown, **QUICK)
        buttons["start"].click(self._start, self._plan, self._shown, **QUICK)
        buttons["stop"].click(self._stop, None, None, **QUICK)
        buttons["serve"].click(self._serve, language, [self._shown, models], **PRIVATE)
        self._timer.tick(self._progress, language, view, **QUICK)

    def close(self) -> None:
        """Stops the workers that were started here; training goes on."""
        self._services.stop()

    async def _offer(self) -> list[Any]:
        found = await asyncio.to_thread(offers, Path.cwd())
        return [gr.update(choices=each) for each in (found.models, found.data, found.recipes)]

    async def _rows(self, *values: Any) -> Any:
        plan = _plan_of(values)
        try:
            plan.command()
            return _told(await _output_of(plan.rows_command(_ROWS)))
        except FastChatError as error:
            return _told(f"error: {error}")

    async def _command(self, *values: Any) -> Any:
        try:
            command = _plan_of(values).command()
        except FastChatError as error:
            return _told(f"error: {error}")
        typed = ["python3" if part == sys.executable else part for part in command]
        return _told(shlex.join(typed).replace(" --", " \\\n    --"))

    async def _start(self, *values: Any) -> Any:
        try:
            await asyncio.to_thread(self._runs.start, _plan_of(values))
        except (FastChatError, OSError) as error:
            return _told(f"error: {error}")
        return await self._command(*values)

    async def _stop(self) -> None:
        self._runs.stop()

    async def _progress(self, language: str) -> tuple[str, Any]:
        found = await asyncio.to_thread(self._runs.progress)
        if found is None:
            return f"<p>{say(language, 'train_none')}</p>", gr.skip()
        key = "train_running" if found.running else "train_ended"
        told = html.escape(say(language, key, output=found.output))
        plot = loss_plot(found.losses, say(language, "train_loss")) if found.losses else ""
        return f"<p>{told}</p>{plot}", _told(found.log)

    async def _serve(self, language: str) -> AsyncGenerator[list[Any], None]:
        found = self._runs.progress()
        try:
            if found is None:
                raise SettingsError(say(language, "train_none"))
            if found.running:
                raise SettingsError(say(language, "train_running", output=found.output))
            if not self._controller_url:
                raise SettingsError(say(language, "train_nowhere"))
            output = Path(found.output)
            if output.name not in self._served:
                yield [_told(say(language, "train_serving", name=output.name)), gr.skip()]
                await asyncio.to_thread(self._start_worker, output)
                self._served.add(output.name)
            names = await self._names_with(output.name)
        except FastChatError as error:
            yield [_told(f"error: {error}"), gr.skip()]
            return
        told = _told(say(language, "train_served", name=output.name))
        yield [told, gr.update(choices=names, value=output.name)]

    async def _names_with(self, name: str) -> list[str]:
        """The models, once the one that was just started has registered."""
        for _ in range(_LOOKS):
            names = await self._catalogue.open_names(again=True)
            if name in names:
                return names
            await asyncio.sleep(_LOOK_S)
        raise WorkerUnavailableError(f"The worker for {name} has not registered.")

    def _start_worker(self, output: Path) -> None:
        (port,) = free_ports(1)
        address = f"http://127.0.0.1:{port}"
        self._services.start(
            Service(
                output.name,
                "fastchat.serve.model_worker",
                [
                    *("--host", "127.0.0.1", "--port", str(port)),
                    *("--model-path", str(output), "--model-names", output.name),
                    *("--worker-address", address, "--controller-address", self._controller_url),
                ],
                f"{address}/health",
            )
        )
        self._services.wait_until_ready(_ROWS_S)


def _told(text: str) -> Any:
    return gr.update(value=text, visible=bool(text))


def _plan_of(values: tuple[Any, ...]) -> Plan:
    kind, mode, model, data, output, epochs, rate, length, recipe, more = values
    return Plan(
        kind,
        mode,
        model or "",
        data or "",
        output or "",
        float(epochs or 0),
        float(rate or 0),
        int(length or 0),
        recipe or "",
        more or "",
    )


async def _output_of(command: list[str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _ROWS_S)
    finally:
        if process.returncode is None:
            process.kill()
    return output.decode(errors="replace")
