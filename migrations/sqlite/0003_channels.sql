-- Durable channels: messages that clients publish are kept in the journal, beside the events of tasks.

-- Ids that publishers gave their messages: the same id on the same topic is the same message until `until`.
create table message_id (
  topic text not null,
  id    text not null,
  seq   integer not null,                         -- the first message's offset
  until integer not null,
  primary key (topic, id)
) without rowid;
create index message_id_until on message_id (until);
