-- The query log is a projection of the questions and answers topics: written by the recorder, dropped and rebuilt by
-- `leat replay --topic answers`.

alter table query_log add column collection text;   -- as asked; null: the question has left its topic
alter table query_log add column query text;
alter table query_log add column asked_at timestamptz;

-- What was asked, until its answer is logged with it. Both come from topics of their own, in either order.
create table questions_asked (
    question_id text primary key,
    tenant      text not null,
    subject     text not null,
    collection  text not null,
    query       text not null,
    asked_at    timestamptz not null
);
create index questions_asked_by_time on questions_asked (asked_at);
