-- When generations changed their state, and work that takes longer than a request.

alter table generations add column serving_since timestamptz;  -- by a switch; null: from its creation on, or never
alter table generations add column served_until timestamptz;   -- when it last ceased to serve
alter table generations add column retired_at timestamptz;
alter table generations add column purged_at timestamptz;      -- nothing of it was left in index and tables by then

create table jobs (
    job_id           text primary key,       -- time first: ids sort
    tenant           text not null collate "C",
    collection       text not null collate "C",
    type             text not null,
    status           text not null default 'PENDING'
                     check (status in ('PENDING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELLED')),
    phase            text not null default '',
    payload          jsonb not null default '{}',
    progress         jsonb not null default '{}',
    resume           jsonb not null default '{}',  -- where another process goes on
    result           jsonb,
    error            text,
    retry_count      integer not null default 0,   -- how often a process died over it
    paused           boolean not null default false,
    cancel_requested boolean not null default false,
    created_at       timestamptz not null default clock_timestamp(),
    started_at       timestamptz,
    updated_at       timestamptz not null default clock_timestamp(),
    finished_at      timestamptz
);
create index jobs_open on jobs (created_at) where finished_at is null;
create index jobs_of_tenant on jobs (tenant, created_at);
create unique index jobs_one_reindex on jobs (tenant, collection) where type = 'reindex' and finished_at is null;
