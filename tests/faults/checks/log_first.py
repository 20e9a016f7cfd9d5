"""A10: 32 writers, while the API dies around the acknowledgement and the brokers are cut off."""

from tests.faults.arena import Arena
from tests.faults.brokers import proxied_broker
from tests.faults.edge import edge_settings, serving
from tests.faults.harness import installation
from tests.faults.log_first import Writers, cut_and_kill, differences

WRITES, CUTS = 20_000, 100


async def log_first(arena: Arena) -> None:
    """Every 202 is in the log as acknowledged; no row claims what the log does not hold."""
    async with proxied_broker(arena.place("broker")) as (broker, proxy):
        settings = {"kafka_bootstrap_servers": broker.bootstrap_servers, **edge_settings()}
        async with installation(arena.services, arena.place("leat"), seed=arena.seed(), **settings) as leat:
            leat.start("index")
            leat.start("pipeline")
            async with serving(leat, kafka_bootstrap_servers=":".join(map(str, proxy.address))) as client:
                writers = Writers(client, arena.times(WRITES, least=2_000))
                cuts = arena.times(CUTS, least=10)
                await cut_and_kill(leat, client, proxy, writers, cuts=cuts)
                await leat.settled(within_s=120)
                arena.note("log first", await differences(leat, writers.accepted))
                arena.did("API killed or brokers cut off", cuts)
                arena.result.acknowledged = len(writers.accepted)
                arena.result.figures["writes refused"] = str(writers.refused)
                lost = dict(list(writers.accepted.items())[:1])
                shifted = {f"not-{name}": position for name, position in lost.items()}
                arena.bites(
                    "what is accepted is in the log (one name changed)", {"A10": len(await differences(leat, shifted))}
                )
