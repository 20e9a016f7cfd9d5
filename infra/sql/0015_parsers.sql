-- How a generation reads documents, where not by their content type or ending: {".txt": "markdown"}.
alter table generations add column parsers jsonb not null default '{}';
