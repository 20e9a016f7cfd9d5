-- Owned state: what a user has asked in a conversation. Not rebuilt from the log.

create table conversations (
    tenant          text not null collate "C",
    subject         text not null collate "C",
    conversation_id text not null collate "C",   -- chosen by the client; each user has names of their own
    title           text not null,               -- the first question
    created_at      timestamptz not null,
    updated_at      timestamptz not null,
    -- A question that was under way when its conversation was deleted must not bring it back.
    deleted_at      timestamptz,
    primary key (tenant, subject, conversation_id)
);
create index conversations_newest on conversations (tenant, subject, updated_at desc) where deleted_at is null;

create table conversation_turns (
    tenant          text not null collate "C",
    subject         text not null collate "C",
    conversation_id text not null collate "C",
    question_id     text not null,
    query           text not null,
    standalone      text not null,               -- the question as it was understood with the earlier turns
    answer          text not null,
    answered        boolean not null,
    -- What the answer cites: [{collection, document_id, revision}]. Shown only as long as all of it may be read.
    cited           jsonb not null,
    asked_at        timestamptz not null,
    primary key (tenant, subject, conversation_id, question_id),
    foreign key (tenant, subject, conversation_id) references conversations on delete cascade
);
create index conversation_turns_in_order on conversation_turns (tenant, subject, conversation_id, asked_at);
