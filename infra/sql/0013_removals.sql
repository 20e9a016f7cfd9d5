-- Documents that are to be forgotten altogether: asked for, then done step by step by the role `jobs`. A row stays, as the
-- record of it; asking again begins anew.

create table erasures (
    tenant         text not null collate "C",
    collection     text not null collate "C",
    document_id    text not null collate "C",
    requested_by   text not null,
    requested_at   timestamptz not null default clock_timestamp(),
    -- Of what its passages said, under which vectors are kept.
    content_hashes bytea[] not null default '{}',
    epoch          integer,                    -- where its deletion stands in the log; null: not published yet
    partition      integer,
    record_offset  bigint,
    removed        jsonb not null default '{}', -- how much of what
    done_at        timestamptz,
    primary key (tenant, collection, document_id)
);
create index erasures_open on erasures (requested_at) where done_at is null;

-- Up to where the log speaks of a collection of that name that was deleted since. What stands before is of the one that
-- is gone, whoever reads it and whenever.

create table collection_ends (
    tenant     text not null collate "C",
    collection text not null collate "C",
    partition  integer not null,
    epoch      integer not null,
    ends_at    bigint not null,               -- the offset behind its last record
    ended_at   timestamptz not null default clock_timestamp(),
    primary key (tenant, collection, partition)
);
