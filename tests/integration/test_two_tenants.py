from __future__ import annotations

from tests.integration import two_tenants


class TestNoCanaryCrosses:
    async def test_on_one_machine(self):
        with two_tenants.on_one_machine() as manager:
            made = await two_tenants.calls(manager, 250)
        assert set(made) == set(two_tenants.CALLS)

    async def test_on_servers_nor_by_raw_sql(self, postgres):
        postgres.empty()
        with two_tenants.on_servers(postgres) as manager:
            made = await two_tenants.calls(manager, 250)
        assert set(made) == set(two_tenants.CALLS)
        assert two_tenants.raw_calls(postgres, 500) > 0
