-- requires extension: timescaledb
create extension if not exists timescaledb;
select create_hypertable('query_log', 'finished_at', migrate_data => true, if_not_exists => true);
