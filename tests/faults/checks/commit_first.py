"""Teeth of the checks in which workers die: the same death, with the offsets committed before the effects."""

from tests.faults.harness import PIPELINE, Leat, eventually

PROTECTION = "offsets are committed after the effects"
SABOTAGE = "commit_first"


async def lose_a_batch(leat: Leat, *, workers: int = 1) -> None:
    """Kill a worker that has committed what it has not done yet, and start it again; everything is settled then."""
    leat.start("index")
    for number in range(1, workers + 1):
        leat.start(f"worker-{number}", PIPELINE, sabotage=SABOTAGE)
    await leat.change("warm-up.md")
    await leat.settled()
    obeyed = [leat.order(f"worker-{number}", "consumed") for number in range(1, workers + 1)]
    await leat.burst("lost", 40)
    await eventually(lambda: not all(file.exists() for file in obeyed), what="pass of consumed")
    died = next(number for number, file in enumerate(obeyed, 1) if not file.exists())
    for file in obeyed:
        file.unlink(missing_ok=True)
    await leat.running[f"worker-{died}"].ended()
    leat.restart(f"worker-{died}")
    await leat.settled()
