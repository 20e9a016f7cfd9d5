-- What documents said before: superseded revisions, for as long as their collection keeps history. Written by a trigger,
-- in the transaction that replaces a revision, so that no writer can forget it. Only the serving generation's word counts.

alter table collections add column history_days integer not null default 7 check (history_days between 0 and 36500);
-- What was replaced before then was not kept. A collection comes into being with its first document, which was accepted
-- a moment before.
alter table collections add column history_since timestamptz not null default now();
alter table collections alter column history_since set default now() - interval '1 minute';
-- Of a document that changes too often to keep it all: what was replaced before then is gone, whatever the window says.
alter table documents add column history_since timestamptz;

-- A revision that was shown, and from when to when (times of the log) it was the current one. Passages by their hashes.
create table past_revisions (
    document_key   bigint not null references documents on delete cascade,
    revision       bigint not null,
    current_from   timestamptz not null,
    current_until  timestamptz not null,
    title          text not null,
    url            text,
    content_type   text not null,
    metadata       jsonb not null,
    content_hashes bytea[] not null,         -- in reading order; so are the places
    starts         integer[] not null,
    ends           integer[] not null,
    pages          integer[] not null,       -- null elements where there are no pages
    primary key (document_key, revision)
);
create index past_revisions_by_end on past_revisions (current_until);

-- Each text of a document's past revisions once.
create table past_texts (
    document_key bigint not null references documents on delete cascade,
    content_hash bytea not null,
    heading_path jsonb not null,
    text         text not null,
    tokens       integer not null,
    primary key (document_key, content_hash)
);

create function keep_past_revision() returns trigger language plpgsql as $$
declare
    days integer;
    hidden_upto bigint;
begin
    select c.history_days, d.invisible_upto into days, hidden_upto
    from generations g
    join collections c using (tenant, collection)
    join documents d on d.document_key = old.document_key
    where g.generation_id = old.generation_id and g.state = 'serving';
    if not found then
        return null;
    end if;
    if new.deleted or old.applied_revision <= hidden_upto then
        -- What is deleted leaves the past, too.
        delete from past_revisions where document_key = old.document_key;
        delete from past_texts where document_key = old.document_key;
    elsif days > 0 and not old.deleted then
        insert into past_texts (document_key, content_hash, heading_path, text, tokens)
        select distinct on (p.content_hash) p.document_key, p.content_hash, p.heading_path, p.text, p.tokens
        from passages p
        where p.generation_id = old.generation_id and p.document_key = old.document_key
        on conflict do nothing;
        insert into past_revisions (document_key, revision, current_from, current_until, title, url, content_type,
                                    metadata, content_hashes, starts, ends, pages)
        select old.document_key, old.applied_revision, old.accepted_at, greatest(old.accepted_at, new.accepted_at),
               old.title, old.url, old.content_type, old.metadata,
               coalesce(array_agg(p.content_hash order by p.ordinal), '{}'),
               coalesce(array_agg(p.start_offset order by p.ordinal), '{}'),
               coalesce(array_agg(p.end_offset order by p.ordinal), '{}'),
               coalesce(array_agg(p.page order by p.ordinal), '{}')
        from passages p
        where p.generation_id = old.generation_id and p.document_key = old.document_key
        on conflict do nothing;
    end if;
    return null;
end $$;

create trigger manifests_keep_past after update of applied_revision on manifests
for each row when (old.applied_revision < new.applied_revision) execute function keep_past_revision();
