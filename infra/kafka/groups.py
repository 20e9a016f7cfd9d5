"""Whether consumer groups are settled: every partition has an owner and nobody is waiting for a rebalance."""

from collections.abc import Iterable

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import DescribeGroupsRequest_v0
from aiokafka.protocol.api import Request

from infra.kafka.connection import connection_kwargs
from infra.settings import Settings

_STABLE = "Stable"


class _DescribeGroups(Request[DescribeGroupsRequest_v0]):  # type: ignore[misc]
    """Version 0: it says the state, and aiokafka 0.14 cannot read the newer answers about static members."""

    API_KEY = 15

    def __init__(self, groups: list[str]) -> None:
        self._groups = groups

    def build(self, request_struct_class: type[DescribeGroupsRequest_v0]) -> DescribeGroupsRequest_v0:
        return request_struct_class(self._groups)


async def unsettled_groups(settings: Settings, groups: Iterable[str]) -> list[str]:
    """Those groups that have no member yet or are rebalancing; all of them when the brokers do not say."""
    wanted = sorted(groups)
    admin = AIOKafkaAdminClient(**connection_kwargs(settings), request_timeout_ms=5_000)
    settled = set()
    try:
        await admin.start()
        for group in wanted:
            coordinator = await admin.find_coordinator(group)
            answer = await admin._send_request(_DescribeGroups([group]), coordinator)
            settled |= {found[1] for found in answer.groups if found[2] == _STABLE}
    except (KafkaError, OSError):
        return wanted
    finally:
        await admin.close()
    return [group for group in wanted if group not in settled]
