"""Directory ingestion as a job: only of folders that the settings allow."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.files.folder import RootGone
from infra.files.ingesting import find_files, progress, publish_files
from infra.files.publishing import open_publishing
from infra.settings import Settings
from schemas.positions import Position
from streams.errors import PermanentError
from streams.jobs import JobClaim, JobWork, Progress

LISTED_UNREADABLE = 100


def allowed_directory(settings: Settings, text: str) -> Path:
    """The folder, if it lies in one that may be ingested from; links are followed before that is decided.

    Raises:
        PermanentError: ``folder-not-allowed``, or ``no-such-folder``.
    """
    path = Path(text).resolve()
    allowed = [Path(part).resolve() for part in settings.ingest_folders.split(os.pathsep) if part]
    if not any(path.is_relative_to(root) for root in allowed):
        raise PermanentError("folder-not-allowed", f"{text!r} is in no folder that LEAT_INGEST_FOLDERS names")
    if not path.is_dir():
        raise PermanentError("no-such-folder", f"there is no folder {text!r} where the jobs run")
    return path


def directory_work(settings: Settings) -> JobWork:
    """``JobWork`` of directory ingestion. After a crash it goes on behind the last published file."""

    async def ingest(claim: JobClaim) -> Mapping[str, Any]:
        job = claim.job
        directory = allowed_directory(settings, str(job.payload["directory"]))
        try:
            files, unreadable = find_files([directory])
        except RootGone as error:
            raise PermanentError("no-such-folder", str(error)) from error
        ordered = sorted(files)
        done = int(job.resume.get("published", 0))
        await claim.save(phase="publishing", progress=Progress(len(ordered), done))
        positions: list[Position] = []
        own = settings.model_copy(update={"tenant": job.tenant})
        left = {name: files[name] for name in ordered[done:]}
        async with open_publishing(own) as producer:
            async for batch in publish_files(own, producer, left, collection=job.collection):
                positions += batch.positions
                unreadable |= batch.unreadable
                done += len(batch.positions) + len(batch.unreadable)
                await claim.save(progress=Progress(len(ordered), done), resume={"published": done})
                await claim.checkpoint()
            found = await progress(producer.database, positions)
        return {
            "directory": str(directory),
            "files": len(ordered),
            "published": len(positions),
            "unreadable": dict(list(unreadable.items())[:LISTED_UNREADABLE]),
            "searchable_by_then": found.searchable,
        }

    return ingest
