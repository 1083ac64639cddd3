"""The launcher that a recipe asks for."""

from svd.config.compute import KubernetesLauncherConfig, LauncherConfig, SlurmLauncherConfig
from svd.runtime.launch.kubernetes import KubernetesLauncher
from svd.runtime.launch.launcher import Launcher
from svd.runtime.launch.local import LocalLauncher
from svd.runtime.launch.slurm import SlurmLauncher


def build_launcher(config: LauncherConfig) -> Launcher:
    """Return the launcher of `compute.launcher`."""
    if isinstance(config, SlurmLauncherConfig):
        return SlurmLauncher(config)
    if isinstance(config, KubernetesLauncherConfig):
        return KubernetesLauncher(config)
    return LocalLauncher()
