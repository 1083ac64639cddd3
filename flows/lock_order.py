"""dvc.lock lists its stages as one `dvc repro` would, in whatever order they have ended."""

from svd.runtime.workspace import Workspace


def order_lock(workspace: Workspace) -> None:
    """Put the entries of dvc.lock in order, so that the same results are the same bytes."""
    # DVC takes a second to import, which a run that finds nothing changed does not spend.
    from dvc.repo import Repo
    from dvc.repo.reproduce import plan_repro
    from dvc.utils.serialize import modify_yaml

    path = workspace.root / "dvc.lock"
    with Repo(str(workspace.root), _wait_for_lock=True) as repo, repo.lock:
        order = [stage.name for stage in plan_repro(repo.index.graph)]
        with modify_yaml(str(path)) as content:
            stages = content.get("stages", {})
            known = [name for name in order if name in stages]
            content["stages"] = {
                name: stages[name] for name in [*known, *(n for n in stages if n not in known)]
            }
