-- What the reconciler found in its last round, by kind of difference, and what it has repaired since the beginning.
create table drift_reports (
    kind           text primary key,
    found          integer not null,
    repaired       integer not null,
    repaired_total bigint not null,
    checked_at     timestamptz not null
);
