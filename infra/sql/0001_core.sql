-- Owned state (collections, generations) and projections of the log (all other tables: they can be dropped and rebuilt
-- by replay). Runs on plain PostgreSQL 15+ and on TimescaleDB.
--
-- Names are compared byte by byte (collate "C"): the order of code points, in which Python sorts too. Every transaction
-- locks rows in the order of (tenant, collection, document_id), so that two batches never wait for each other in a ring.

create table log_epochs (
    topic      text not null,
    epoch      integer not null,          -- 0, 1, 2 …: how often the topic was started anew
    topic_uuid text not null,
    noticed_at timestamptz not null default now(),
    primary key (topic, epoch)
);

create table generations (
    generation_id         bigint generated always as identity primary key,
    tenant                text not null collate "C",
    collection            text not null collate "C",
    number                integer not null,
    state                 text not null check (state in ('building', 'serving', 'standby', 'retired')),
    embedding_model       text not null,
    embedding_fingerprint text not null,
    dimensions            integer not null,
    max_tokens            integer not null,
    chunk_tokens          integer not null,
    chunk_overlap         integer not null,
    created_at            timestamptz not null default now(),
    unique (tenant, collection, number)
);
create unique index generations_one_serving on generations (tenant, collection) where state = 'serving';

create table collections (
    tenant                 text not null collate "C",
    collection             text not null collate "C",
    ordering               text not null default 'log' check (ordering in ('log', 'source')),
    on_failure             text not null default 'keep' check (on_failure in ('keep', 'hide')),
    default_access_level   smallint not null default 0 check (default_access_level between 0 and 3),
    default_allowed_groups text[] not null default '{}',
    created_at             timestamptz not null default now(),
    primary key (tenant, collection)
);

-- The fold of leat.documents.v1: what the newest admitted change of each document says. Written by the chunker.
create table documents (
    document_key    bigint generated always as identity primary key,
    tenant          text not null collate "C",
    collection      text not null collate "C",
    document_id     text not null collate "C",
    revision        bigint not null,
    change          text not null check (change in ('upsert', 'delete', 'access')),
    deleted         boolean not null,
    -- Manifests applied at or below this revision are not shown: a deletion (or on_failure = hide) takes effect here,
    -- before the index has followed, and text from before a deletion cannot shine through a re-creation.
    invisible_upto  bigint not null default -1,
    content_revision bigint,                -- newest upsert
    content_epoch     integer,              -- where its record stands in the log; null: deleted
    content_partition integer,
    content_offset    bigint,
    access_level    smallint not null check (access_level between 0 and 3),
    allowed_groups  text[] not null default '{}',   -- empty: every group
    epoch           integer not null,
    partition       integer not null,
    record_offset   bigint not null,
    event_id        text not null,
    accepted_at     timestamptz not null,
    lane            text not null,
    -- When the oldest change was accepted that the serving generation has not applied yet; null: level with the log.
    pending_since   timestamptz,
    source_version  bigint,
    content_sha256  bytea,
    size_bytes      bigint,
    moved_from      text,
    failed_revision bigint,
    failure_reason  text,
    failure_detail  text,
    unique (tenant, collection, document_id)
);
create index documents_pending on documents (tenant, collection, pending_since) where pending_since is not null;
create index documents_newest on documents (tenant, collection, accepted_at);
create index documents_failed on documents (tenant, collection) where failed_revision is not null;

-- What a generation serves of a document, and the fence: applied_revision never decreases; rows outlive deletions.
create table manifests (
    generation_id    bigint not null references generations,
    document_key     bigint not null references documents,
    applied_revision bigint not null,
    deleted          boolean not null,
    title            text not null default '',
    url              text,
    content_type     text not null default '',
    size_bytes       bigint not null default 0,
    metadata         jsonb not null default '{}',
    passages         integer not null default 0,
    unembedded       integer not null default 0,   -- live passages without a vector
    epoch            integer not null,
    partition        integer not null,
    record_offset    bigint not null,
    accepted_at      timestamptz not null,
    chunked_at       timestamptz,
    searchable_at    timestamptz not null,
    embedded_at      timestamptz,
    primary key (generation_id, document_key)
);
create index manifests_accepted on manifests (generation_id, accepted_at);
create index manifests_searchable on manifests (searchable_at);
create index manifests_embedded on manifests (embedded_at);

-- Live passages only: a row here is what may be shown. Text stays in the row, uncompressed: it is read on every question.
create table passages (
    point_id       uuid primary key,
    generation_id  bigint not null,
    document_key   bigint not null,
    ordinal        integer not null,
    content_hash   bytea not null,
    birth_revision bigint not null,
    payload_digest bytea not null,
    embedded       boolean not null,
    text           text not null,
    heading_path   jsonb not null,        -- an array of strings, outermost heading first
    page           integer,
    start_offset   integer not null,
    end_offset     integer not null,
    tokens         integer not null
) with (toast_tuple_target = 8160);
create index passages_by_document on passages (generation_id, document_key, ordinal);
create index passages_unembedded on passages (generation_id, document_key) where not embedded;

-- Dead points, entered in the flip's transaction, swept from the index later.
create table garbage (
    point_id uuid primary key,
    space    text not null,
    died_at  timestamptz not null default now()
);
create index garbage_by_age on garbage (died_at);

create table vector_cache (
    tenant       text not null collate "C",
    fingerprint  text not null collate "C",
    content_hash bytea not null,
    vector       bytea not null,          -- little-endian float32
    last_used_on date not null default current_date,
    primary key (tenant, fingerprint, content_hash)
);
alter table vector_cache alter column vector set storage external;  -- floats do not compress
create index vector_cache_by_use on vector_cache (last_used_on);

create table counters (
    name  text primary key,              -- embedded_passages, embedded_tokens
    value bigint not null
);

-- Projections of index-commits, dead-letters and answers. Written by the recorder.
create table outcomes (
    epoch         integer not null,
    partition     integer not null,
    record_offset bigint not null,
    tenant        text not null collate "C",
    collection    text not null collate "C",
    document_id   text not null collate "C",
    revision      bigint not null,
    generation_id bigint,
    event_id      text not null,
    outcome       text not null,
    change        text,
    reason        text,
    detail        text,
    lane          text not null,
    passages_added integer not null,
    passages_kept  integer not null,
    passages_removed integer not null,
    accepted_at   timestamptz not null,
    committed_at  timestamptz not null,
    primary key (epoch, partition, record_offset)
);
create index outcomes_by_document on outcomes (tenant, collection, document_id, revision);
create index outcomes_by_time on outcomes (committed_at);

create table dead_letters (
    letter_partition integer not null,
    letter_offset    bigint not null,
    key              bytea,
    tenant           text collate "C",
    collection       text collate "C",
    document_id      text collate "C",
    reason           text not null,
    detail           text not null,
    stage            text not null,
    attempts         integer not null,
    topic            text not null,
    partition        integer not null,
    record_offset    bigint not null,
    consumer_group   text not null,
    lane             text,
    revision         bigint,
    event_id         text,
    size_bytes       integer not null,
    died_at          timestamptz not null,
    replayed_at      timestamptz,
    resolved_at      timestamptz,         -- a later revision, or a replay, has been applied
    primary key (letter_partition, letter_offset)
);
create index dead_letters_open on dead_letters (died_at) where resolved_at is null;
create index dead_letters_by_document on dead_letters (tenant, collection, document_id) where resolved_at is null;

create table answers (
    question_id  text primary key,
    tenant       text not null,
    subject      text not null,
    collection   text not null,
    query        text not null,
    state        text not null check (state in ('done', 'failed')),
    attempt      integer not null,
    answer       jsonb,
    reason       text,
    detail       text,
    asked_at     timestamptz not null,
    finished_at  timestamptz not null default now()
);
create index answers_by_time on answers (finished_at);

-- One row per answered or failed question, for analytics; a hypertable where TimescaleDB is.
create table query_log (
    question_id text not null,
    finished_at timestamptz not null,
    tenant      text not null,
    subject     text not null,
    outcome     text not null,            -- answered, unanswered, failed
    reason      text,
    took_ms     double precision,
    confidence  double precision,
    generation  integer,
    behind_ms   double precision,
    sources     integer not null default 0,
    degraded    boolean not null default false,
    primary key (question_id, finished_at)
);
create index query_log_by_time on query_log (finished_at);

-- The watcher's memory: what it has published of which folder, and deletions that wait for approval.
create table watched_files (
    tenant      text not null collate "C",
    collection  text not null collate "C",
    root        text not null,
    document_id text not null collate "C",
    size_bytes  bigint not null,
    mtime_ns    bigint not null,
    sha256      bytea not null,
    primary key (tenant, collection, root, document_id)
);
create table withheld_deletions (
    tenant      text not null collate "C",
    collection  text not null collate "C",
    root        text not null,
    document_id text not null collate "C",
    noticed_at  timestamptz not null default now(),
    approved_at timestamptz,
    primary key (tenant, collection, root, document_id)
);
create table unreadable_files (
    tenant      text not null collate "C",
    collection  text not null collate "C",
    root        text not null,
    document_id text not null collate "C",
    reason      text not null,
    primary key (tenant, collection, root, document_id)
);

-- A document as people ask about it: what the log says, beside what the serving generation shows.
create view document_states as
select
    d.*,
    m.generation_id,
    m.applied_revision,
    m.title,
    m.url,
    m.content_type,
    m.metadata,
    m.size_bytes as shown_size_bytes,
    case when d.deleted or m.applied_revision <= d.invisible_upto then 0 else coalesce(m.passages, 0) end as passages,
    case when d.deleted or m.applied_revision <= d.invisible_upto then 0 else coalesce(m.unembedded, 0) end as unembedded,
    m.searchable_at,
    m.embedded_at,
    case
        when d.deleted then 'deleted'
        when d.failed_revision >= d.content_revision then 'failed'
        when m.applied_revision >= d.content_revision and m.applied_revision > d.invisible_upto
            then case when m.unembedded = 0 then 'embedded' else 'searchable' end
        else 'received'
    end as stage
from documents d
left join generations g on g.tenant = d.tenant and g.collection = d.collection and g.state = 'serving'
left join manifests m on m.generation_id = g.generation_id and m.document_key = d.document_key;

-- Records that a process died of, per consumer group: after three times a record goes to the dead letters.
create table crashes (
    consumer_group text not null,
    record_name    text not null,          -- topic/partition/offset
    times          integer not null,
    last_at        timestamptz not null default now(),
    primary key (consumer_group, record_name)
);

-- Records that arrived in another partition than their document's, and where they arrived when they were sent home.
create table sent_home (
    sent_home_from text primary key,       -- epoch/topic/partition/offset
    record_offset  bigint not null,
    noticed_at     timestamptz not null default now()
);
